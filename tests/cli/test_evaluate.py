import json

from hf_distill.cli import main
from tests.tiny_jobs import put_job, put_teacher, rows_of


def test_a_model_beside_its_teacher(tmp_path, capsys):
    words = put_job(tmp_path, "token-classification")
    found = tmp_path / "found.json"
    model = ["--model", str(tmp_path / "teacher")]
    assert main(["evaluate", *model, *words, "--use_cpu", "--output_file", str(found)]) == 0
    measured = json.loads(found.read_text())
    assert measured["model"]["scores"]["agreement"] == 1.0
    assert measured["model"]["scores"]["accuracy"] == measured["teacher"]["scores"]["accuracy"]
    assert "agreement" in capsys.readouterr().out
    assert main(["evaluate", *model, *words[2:], "--use_cpu", "--eval_split", "train"]) == 0
    assert "teacher" not in capsys.readouterr().out


def test_says_that_there_is_nothing_to_measure_by(tmp_path, capsys):
    put_teacher(tmp_path / "teacher", "text-classification")
    rows_of("text-classification").rename_column("label", "verdict").to_csv(tmp_path / "rows.csv")
    words = ["--model", str(tmp_path / "teacher"), "--dataset", str(tmp_path / "rows.csv"), "--use_cpu"]
    assert main(["evaluate", *words]) == 1
    assert (
        "nothing to measure the model by: the data set has the columns sentence, verdict." in capsys.readouterr().err
    )
    assert main(["evaluate", *words, "--label_column", "verdict"]) == 0
    assert main(["evaluate", *words, "--teacher", str(tmp_path / "teacher")]) == 0
    assert "agreement" in capsys.readouterr().out

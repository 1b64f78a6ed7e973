import json

from hf_distill.cli import main
from tests.tiny_jobs import put_job


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

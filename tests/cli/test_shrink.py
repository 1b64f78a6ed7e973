import json

from transformers import AutoModelForSequenceClassification

from hf_distill.cli import main
from tests.tiny_jobs import QUICK, put_job


def test_a_student_for_a_budget(tmp_path, capsys):
    words = put_job(tmp_path, "text-classification")
    words = ["shrink", *words[1:], "--budget", "1.2x smaller", "--output_dir", str(tmp_path / "out"), *QUICK]
    assert main([*words, "--plan_only"]) == 0
    said = capsys.readouterr().out
    assert "Two trainings of 4 steps" in said and "distilled" not in said
    assert main([*words, "--resume"]) == 0
    assert "labels alone" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "evidence.json").read_text())
    student = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert student.num_parameters() == found["distilled"]["parameters"] <= found["teacher"]["parameters"] / 1.2


def test_another_budget_is_said_at_once(tmp_path, capsys):
    words = put_job(tmp_path, "text-classification")
    assert main(["shrink", *words, "--budget", "tiny", "--output_dir", str(tmp_path / "out"), *QUICK]) == 1
    assert "budget='tiny' is not understood" in capsys.readouterr().err
    assert not (tmp_path / "out" / "arguments.yaml").exists()

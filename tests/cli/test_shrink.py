import json
import shutil

import pytest
from transformers import AutoModelForSequenceClassification

from hf_distill.cli import main
from hf_distill.report import DistillationReport
from tests.tiny_jobs import QUICK, put_job


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporters
def test_a_student_for_a_budget_its_programs_and_its_report(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    words, out = put_job(tmp_path, "text-classification"), tmp_path / "out"
    words = ["shrink", *words[1:], "--budget", "1.2x smaller", "--output_dir", str(out), *QUICK]
    assert main([*words, "--plan_only"]) == 0
    said = capsys.readouterr().out
    assert "Two trainings of 4 steps" in said and "distilled" not in said
    assert main([*words, "--resume"]) == 0
    assert "labels alone" in capsys.readouterr().out
    found = json.loads((out / "evidence.json").read_text())
    student = AutoModelForSequenceClassification.from_pretrained(out)
    assert student.num_parameters() == found["distilled"]["parameters"] <= found["teacher"]["parameters"] / 1.2
    report = DistillationReport.from_json((out / "report" / "report.json").read_text())
    assert [each.name for each in report.exports] == ["ONNX Runtime", "ONNX Runtime, 8-bit weights", "torch.export"]
    assert all(each.max_difference <= 1e-4 for each in report.exports if "8-bit" not in each.name)
    assert "| torch.export |" in (out / "README.md").read_text()
    assert str(tmp_path) not in (out / "report" / "report.json").read_text()

    programs = {path: path.stat().st_mtime_ns for path in (out / "exports").rglob("*")}
    shutil.rmtree(out / "report")
    assert main([*words, "--resume"]) == 0
    again = DistillationReport.from_json((out / "report" / "report.json").read_text())
    assert again.exports == report.exports and again.metrics == report.metrics
    assert {path: path.stat().st_mtime_ns for path in (out / "exports").rglob("*")} == programs


def test_another_budget_is_said_at_once(tmp_path, capsys):
    words = put_job(tmp_path, "text-classification")
    assert main(["shrink", *words, "--budget", "tiny", "--output_dir", str(tmp_path / "out"), *QUICK]) == 1
    assert "budget='tiny' is not understood" in capsys.readouterr().err
    assert not (tmp_path / "out" / "arguments.yaml").exists()

import json

import pytest

from hf_distill.cli import main
from hf_distill.report import DistillationReport
from tests.tiny_jobs import QUICK, put_job


@pytest.fixture
def finished(tmp_path):
    """The words for a job that has ended, and what it has reported."""
    words = put_job(tmp_path, "text-classification")
    out = tmp_path / "out"
    student = ["--num_hidden_layers", "1", "--output_dir", str(out), "--logging_steps", "1"]
    assert main(["distill", *words, *student, *QUICK, "--baseline"]) == 0
    return words, out, DistillationReport.from_json((out / "report" / "report.json").read_text())


def test_finished_models_give_the_report_of_their_job(finished, tmp_path, capsys):
    words, out, known = finished
    folder = tmp_path / "page"
    words = [*words, "--student", str(out), "--baseline", str(out / "baseline"), "--use_cpu"]
    assert main(["report", *words, "--output_dir", str(folder)]) == 0
    report = DistillationReport.from_json((folder / "report.json").read_text())
    assert report.metrics == known.metrics and report.imitation == known.imitation
    assert report.classes == known.classes and report.examples == known.examples
    assert report.curves == known.curves != {}
    assert "steps" in known.settings and "steps" not in report.settings  # which it does not know
    assert {path.name for path in (out / "report").iterdir()} == {path.name for path in folder.iterdir()}
    said = capsys.readouterr().out
    assert "The student reaches" in said and str(folder) in said


def test_a_student_alone_beside_kept_answers(finished, tmp_path):
    words, out, known = finished
    answers = str(tmp_path / "answers")
    assert main(["cache", *words, "--output_dir", answers, "--dtype", "float32", "--use_cpu"]) == 0
    folder = tmp_path / "page"
    said = [str(out), "--teacher", answers, *words[2:], "--output_dir", str(folder), "--num_resamples", "20"]
    assert main(["report", *said, "--confidence", "0.5", "--use_cpu"]) == 0
    found = json.loads((folder / "report.json").read_text())
    assert (found["confidence"], found["num_resamples"]) == (0.5, 20)
    values = [found["metrics"]["accuracy"]["models"][name]["value"] for name in ("teacher", "student")]
    assert values == [known.metrics["accuracy"].models[name].value for name in ("teacher", "student")]
    assert "baseline" not in found["models"]


def test_what_is_refused_and_an_earlier_report_that_is_replaced(finished, tmp_path, capsys):
    words, out, _ = finished
    words = ["report", *words, "--student", str(out), "--use_cpu", "--num_resamples", "5"]
    assert main([*words, "--output_dir", str(tmp_path / "page"), "--confidence", "95"]) == 1
    assert "`confidence` must lie between 0 and 1, got 95.0" in capsys.readouterr().err
    assert main([*words, "--output_dir", str(out)]) == 1
    assert "holds something else than a report, which would be lost" in capsys.readouterr().err
    assert main([*words, "--output_dir", str(out / "report")]) == 0
    found = json.loads((out / "report" / "report.json").read_text())
    assert found["num_resamples"] == 5

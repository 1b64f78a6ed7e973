import json

import pytest
from datasets import load_from_disk

from hf_distill.cli import main
from hf_distill.report import DistillationReport
from tests.tiny_jobs import QUICK, put_job


ROWS = ("--per_device_train_batch_size", "8")
"""On so many rows terms are tried, in a job and in a report of its own."""


@pytest.fixture
def finished(tmp_path):
    """The words for a job that has ended, and what it has reported."""
    words = put_job(tmp_path, "text-classification")
    out = tmp_path / "out"
    student = ["--num_hidden_layers", "1", "--output_dir", str(out), "--logging_steps", "1"]
    assert main(["distill", *words, *student, *QUICK, *ROWS, "--baseline"]) == 0
    return words, out, DistillationReport.from_json((out / "report" / "report.json").read_text())


@pytest.mark.slow
def test_finished_models_give_the_report_of_their_job(finished, tmp_path, capsys):
    words, out, known = finished
    folder = tmp_path / "page"
    words = [*words, "--student", str(out), "--baseline", str(out / "baseline"), "--use_cpu"]
    assert main(["report", *words, "--output_dir", str(folder)]) == 0
    report = DistillationReport.from_json((folder / "report.json").read_text())
    assert report.metrics == known.metrics and report.imitation == known.imitation
    assert report.classes == known.classes and report.examples == known.examples
    assert report.curves == known.curves != {}
    assert report.terms == known.terms and set(report.terms) == {"labels", "soft"}
    assert "steps" in known.settings and "steps" not in report.settings  # which it does not know
    assert report.settings["term soft"] == known.settings["term soft"]
    assert {path.name for path in (out / "report").iterdir()} == {path.name for path in folder.iterdir()}
    said = capsys.readouterr().out
    assert "The student reaches" in said and str(folder) in said


@pytest.mark.slow
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


@pytest.mark.slow
def test_terms_of_the_recipe_that_the_job_was_given(tmp_path):
    words = put_job(tmp_path, "text-classification")
    out = tmp_path / "out"
    taught = ["--recipe", "dkd", "--recipe_args", "beta: 3"]
    student = ["--num_hidden_layers", "1", "--output_dir", str(out)]
    assert main(["distill", *words, *student, *QUICK, *ROWS, *taught]) == 0
    known = DistillationReport.from_json((out / "report" / "report.json").read_text())
    assert main(["report", str(out), *words, "--output_dir", str(tmp_path / "page"), "--use_cpu"]) == 0
    report = DistillationReport.from_json((tmp_path / "page" / "report.json").read_text())
    assert report.terms == known.terms and report.terms["non_target"].weight == 3.0


@pytest.mark.slow
def test_rows_that_the_job_has_held_out(tmp_path, caplog):
    words = put_job(tmp_path, "text-classification")
    load_from_disk(tmp_path / "data")["train"].to_parquet(tmp_path / "rows.parquet")
    words = [*words[:2], "--dataset", str(tmp_path / "rows.parquet")]
    out = tmp_path / "out"
    assert main(["distill", *words, "--num_hidden_layers", "1", "--output_dir", str(out), *QUICK, "--seed", "7"]) == 0
    known = DistillationReport.from_json((out / "report" / "report.json").read_text())
    assert main(["report", str(out), *words, "--output_dir", str(tmp_path / "page"), "--use_cpu"]) == 0
    report = DistillationReport.from_json((tmp_path / "page" / "report.json").read_text())
    assert report.num_rows == known.num_rows == 3 and report.examples == known.examples
    words = ["--model", str(out), *words[2:], "--use_cpu", "--output_file", str(tmp_path / "scores.json")]
    assert main(["evaluate", *words]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())["model"]["scores"]
    assert scores["accuracy"] == known.metrics["accuracy"].models["student"].value


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore:.*:FutureWarning")
def test_programs_beside_the_student_and_elsewhere(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    words = put_job(tmp_path, "text-classification")
    out, apart, page = tmp_path / "out", tmp_path / "apart", tmp_path / "page"
    assert main(["distill", *words, "--num_hidden_layers", "1", "--output_dir", str(out), *QUICK, "--exports"]) == 0
    known = DistillationReport.from_json((out / "report" / "report.json").read_text())
    assert main(["export", str(tmp_path / "teacher"), *words[2:], "--output_dir", str(apart)]) == 0
    said = ["report", str(out), *words, "--output_dir", str(page), "--use_cpu"]
    (out / "exports" / "half").mkdir()  # of an export that was broken off
    assert main([*said, "--exports", str(apart), str(out / "exports")]) == 0, capsys.readouterr().err
    report = DistillationReport.from_json((page / "report.json").read_text())
    strange, *own = report.exports
    assert [each.name for each in own] == [each.name for each in known.exports]
    for name in ("num_bytes", "num_rows", "max_difference", "agreement"):
        assert [getattr(each, name) for each in own] == [getattr(each, name) for each in known.exports], name
    assert strange.max_difference > 1e-4
    assert any("The program apart differs from the student by" in note for note in report.notes)
    assert main([*said, "--exports", str(tmp_path / "data")]) == 1
    assert "holds no program" in capsys.readouterr().err


@pytest.mark.slow
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

import pytest

from hf_distill import recipes
from hf_distill.errors import ConfigurationError
from hf_distill.jobs.caching import cache
from hf_distill.jobs.distilling import distil
from hf_distill.jobs.evidence import Evidence
from hf_distill.jobs.finished import report_on
from hf_distill.report import DistillationReport
from tests.jobs.test_distilling import STUDENT, TASK, arguments, data_of, teacher  # noqa: F401  # a fixture
from tests.tiny_jobs import rows_of


@pytest.mark.slow
def test_of_a_job_that_has_ended(teacher, tmp_path):  # noqa: F811
    data, out = data_of(rows_of(TASK)), tmp_path / "out"
    distil(teacher, STUDENT, data, arguments(tmp_path), Evidence(out), with_baseline=True)
    known = DistillationReport.from_json((out / "report" / "report.json").read_text())
    args, page = arguments(tmp_path / "apart"), tmp_path / "page"
    report = report_on(teacher, str(out), str(out / "baseline"), data, args, page, batch_sizes=())
    assert report.metrics == known.metrics
    assert report.curves.keys() == known.curves.keys()
    assert report.terms == {} and "term soft" in known.settings and "term soft" not in report.settings
    assert any("it is not known how the student was taught" in note for note in report.notes)
    assert DistillationReport.from_json((page / "report.json").read_text()).metrics == report.metrics


def test_rows_without_labels(teacher, tmp_path):  # noqa: F811
    data = data_of(rows_of(TASK).remove_columns("label"))
    report = report_on(teacher, teacher, None, data, arguments(tmp_path), tmp_path / "page", batch_sizes=())
    assert report.metrics == {} and report.imitation["student"].agreement.value == 1.0


def test_terms_that_kept_answers_cannot_tell(teacher, tmp_path):  # noqa: F811
    data = data_of(rows_of(TASK))
    cache(teacher, data, tmp_path / "answers")
    said = [str(tmp_path / "answers"), teacher, None, data, arguments(tmp_path), tmp_path / "page"]
    report = report_on(*said, objective=recipes.patient_kd(layer_map="last"), batch_sizes=())
    assert report.terms == {} and "term patient" in report.settings
    assert next(note for note in report.notes if "not tried" in note).startswith("The terms were not tried: ")
    assert not any("not known how the student was taught" in note for note in report.notes)


def test_terms_that_need_labels_which_are_not_there(teacher, tmp_path):  # noqa: F811
    data = data_of(rows_of(TASK).remove_columns("label"))
    said = [teacher, teacher, None, data, arguments(tmp_path), tmp_path / "page"]
    report = report_on(*said, objective=recipes.hinton(), batch_sizes=())
    assert report.terms == {} and any("they read labels, and the rows have none" in note for note in report.notes)
    assert set(report_on(*said, objective=recipes.hinton(alpha=0.0), batch_sizes=()).terms) == {"soft"}


def test_a_folder_of_something_else_is_refused_at_once(tmp_path):
    (tmp_path / "thesis.md").write_text("")
    with pytest.raises(ConfigurationError, match="holds something else than a report"):
        report_on("gone", "gone", None, data_of(rows_of(TASK)), arguments(tmp_path), tmp_path)

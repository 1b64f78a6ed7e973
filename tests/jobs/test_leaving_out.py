import json

import pytest

from hf_distill import HardLabelTerm, Objective, SoftTargetTerm
from hf_distill.errors import ConfigurationError
from hf_distill.jobs.distilling import distil
from hf_distill.jobs.evidence import Evidence
from hf_distill.jobs.leaving_out import check_terms, without_each
from hf_distill.jobs.models import make_student
from hf_distill.jobs.pairs import make_pair
from hf_distill.jobs.training import measure, train, trainer_for
from hf_distill.report import DistillationReport
from tests.jobs.test_distilling import STUDENT, TASK, arguments, data_of, teacher  # noqa: F401  # a fixture
from tests.tiny_jobs import rows_of


@pytest.mark.slow
def test_scores_are_those_of_trainings_without_each_term(teacher, tmp_path):  # noqa: F811
    args, out = arguments(tmp_path, alpha=0.3, learning_rate=3e-2), tmp_path / "out"
    pair = make_pair(teacher, STUDENT, data_of(rows_of(TASK)), args.seed)
    found = without_each(pair, STUDENT, args, None, Evidence(out), num_steps=5)
    objectives = {
        "all": Objective({"labels": (0.3, HardLabelTerm()), "soft": (0.7, SoftTargetTerm(2.0))}),
        "labels": Objective({"soft": (0.7, SoftTargetTerm(2.0))}),
        "soft": Objective({"labels": (0.3, HardLabelTerm())}),
    }
    expected, losses = {}, {}
    for name, objective in objectives.items():
        student = make_student(STUDENT, pair.teacher, TASK, args.seed)
        options = {"output_dir": tmp_path / name, "max_steps": 5, "alpha": 0.5}
        trainer = trainer_for(student, pair.data, pair.student_reading, args, pair.teacher, objective, **options)
        train(trainer, resume=False)
        scores = measure(trainer)["scores"]
        expected[name], losses[name] = scores["accuracy"], scores["loss"]
    assert len(set(losses.values())) == 3
    assert found.all_terms == expected.pop("all")
    assert found.without == expected
    assert (found.metric, found.higher_is_better, found.num_steps) == ("accuracy", True, 5)
    kept = json.loads((out / "evidence.json").read_text())
    assert list(kept) == ["all terms, 5 steps", "without labels, 5 steps", "without soft, 5 steps"]
    measured = [each["scores"]["loss"] for each in kept.values()]
    assert measured == pytest.approx([losses["all"], losses["labels"], losses["soft"]])
    assert [path.name for path in out.iterdir()] == ["evidence.json"]


@pytest.mark.slow
def test_a_job_asks_for_it_and_the_report_says_it(teacher, tmp_path):  # noqa: F811
    data, args, out = data_of(rows_of(TASK)), arguments(tmp_path), tmp_path / "out"
    distil(teacher, STUDENT, data, args, Evidence(out))
    report = DistillationReport.from_json((out / "report" / "report.json").read_text())
    assert report.left_out is None and "Which term helped" not in report.to_markdown()
    distil(teacher, STUDENT, data, args, Evidence(out), steps_without_each=2, resume=True)
    report = DistillationReport.from_json((out / "report" / "report.json").read_text())
    assert list(report.left_out.without) == ["labels", "soft"]
    assert "Which term helped" in report.to_markdown()


@pytest.mark.slow
def test_text_without_labels_is_judged_by_agreement(teacher, tmp_path):  # noqa: F811
    data = data_of(rows_of(TASK).remove_columns("label"))
    args = arguments(tmp_path)
    pair = make_pair(teacher, STUDENT, data, args.seed)
    objective = Objective({"soft": (1.0, SoftTargetTerm(2.0)), "sharp": (1.0, SoftTargetTerm(1.0))})
    found = without_each(pair, STUDENT, args, objective, Evidence(tmp_path / "out"), num_steps=1)
    assert found.metric == "agreement" and list(found.without) == ["soft", "sharp"]


@pytest.mark.parametrize(("alpha", "steps"), [(1.0, 5), (0.5, 0)])
def test_nothing_to_leave_out(alpha, steps, tmp_path):
    args = arguments(tmp_path, alpha=alpha)
    with pytest.raises(ConfigurationError, match=f"leave_one_out={steps} trains for so many steps without each term"):
        check_terms(None, args, steps)

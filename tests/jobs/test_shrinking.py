import math

import pytest

from hf_distill import DistillationTrainingArguments
from hf_distill.errors import ConfigurationError
from hf_distill.jobs.data import job_data
from hf_distill.jobs.evidence import Evidence
from hf_distill.jobs.models import StudentSource
from hf_distill.jobs.pairs import make_pair
from hf_distill.jobs.shrinking import Plan, kept_plan, num_steps, shrink
from hf_distill.students import Budget
from tests.tiny_jobs import put_teacher, rows_of


def job(folder, task="text-classification", **changes):
    put_teacher(folder / "teacher", task)
    rows = rows_of(task)
    settings = {"max_steps": 4, "per_device_train_batch_size": 4, "preflight": False, **changes}
    args = DistillationTrainingArguments(output_dir=folder / "out", use_cpu=True, disable_tqdm=True, **settings)
    return str(folder / "teacher"), job_data(task, rows, rows), args


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporters
@pytest.mark.parametrize("task", ["text-classification", "text2text-generation"])
@pytest.mark.parametrize("budget", ["1.2x smaller", "10s"])
def test_plan_and_job(task, budget, tmp_path):
    teacher, data, args = job(tmp_path, task)
    evidence = Evidence(args.output_dir)
    plan = kept_plan(teacher, Budget.parse(budget), data, args, evidence, cost_per_hour=3600.0)
    assert plan.steps == 4
    assert plan.seconds == pytest.approx(2 * 4 * plan.step_seconds) == pytest.approx(plan.cost)
    assert "at that price" in str(plan)
    found = shrink(teacher, plan, data, args, evidence)
    names = ["plan", "teacher", "student before", "distilled", "labels alone"]
    assert [name for name in found if not name.startswith("export ")] == names
    assert found["distilled"]["parameters"] < found["teacher"]["parameters"]


@pytest.mark.slow
def test_a_plan_is_made_once_for_a_budget(tmp_path):
    def planned(budget):
        return kept_plan(teacher, Budget.parse(budget), data, args, Evidence(args.output_dir))

    teacher, data, args = job(tmp_path)
    plan = planned("1.2x smaller")
    assert planned("1.2x smaller") == plan  # also the times, so it was not made again
    other = planned("10s")
    assert other.budget != plan.budget and planned("10s") == other
    Evidence(args.output_dir).measured("student before", lambda: {"x": 1})
    with pytest.raises(
        ConfigurationError, match=r"'factor': 1.2.* the job has begun with a student for .*'limit': 10.0"
    ):
        planned("1.2x smaller")


def test_steps_of_epochs(tmp_path):
    teacher, data, args = job(
        tmp_path, max_steps=-1, num_train_epochs=3, per_device_train_batch_size=5, gradient_accumulation_steps=2
    )
    pair = make_pair(teacher, StudentSource(sizes={"num_hidden_layers": 1}), data, 0)
    assert num_steps(pair, args) == 3 * math.ceil(24 / 10)


@pytest.mark.parametrize(("seconds", "said"), [(20, "20 seconds"), (90, "1.5 minutes"), (5400, "1.5 hours")])
def test_durations(seconds, said):
    assert f"at most {said}" in str(Plan({}, "x", {}, 1, 0.1, seconds, None))

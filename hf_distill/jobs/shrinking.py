"""A student for a budget, found by measuring, and then the whole job."""

import copy
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any

from transformers import TrainerCallback

from hf_distill.errors import ConfigurationError
from hf_distill.jobs.data import Data
from hf_distill.jobs.distilling import distil
from hf_distill.jobs.evidence import Evidence
from hf_distill.jobs.models import StudentSource, load_processor, load_trained
from hf_distill.jobs.pairs import Pair, make_pair
from hf_distill.jobs.training import LABELS_ALONE, TRIAL, trainer_for
from hf_distill.step_cost import duration
from hf_distill.students import Budget, suggest_student
from hf_distill.training_args import DistillationTrainingArguments
from hf_distill.trial_batches import collated, sampled_rows


TIMED_STEPS, WARM_UP = 6, 2


@dataclass(frozen=True)
class Plan:
    """What is going to be done, and what it takes."""

    budget: Mapping[str, Any]
    """What was asked for."""
    student: str
    """In words."""
    sizes: Mapping[str, Any]
    """Arguments of `student_from_teacher`."""
    steps: int
    """Of the student, and of the one that learns from the labels alone."""
    step_seconds: float
    """Measured, with the teacher."""
    seconds: float
    """Of both trainings, at that speed: one without a teacher is faster. Measuring comes on top."""
    cost: float | None
    """At the price of an hour."""

    def __str__(self) -> str:
        price = "" if self.cost is None else f", about {self.cost:.2f} at that price"
        return (
            f"The student: {self.student}.\nTwo trainings of {self.steps} steps at {self.step_seconds * 1e3:.3g} ms, "
            f"at most {duration(self.seconds)}{price}."
        )


def plan_of(
    teacher: str, budget: Budget, data: Data, args: DistillationTrainingArguments, cost_per_hour: float | None = None
) -> Plan:
    """Find the student, and time a few steps of its training.

    Args:
        teacher: an id or a path.
        budget: forward passes are timed on `args.per_device_eval_batch_size` rows of the evaluation data.
        data: with rows to train on.
        args: of the Trainer.
        cost_per_hour: the price of the machine.
    """
    model = load_trained(teacher, data.task_name)
    reading = data.reading(model, load_processor(teacher, data.task_name))
    with TemporaryDirectory() as folder:
        rows_to_time = replace(data, train=None)
        trainer = trainer_for(model, rows_to_time, reading, args, output_dir=folder, **LABELS_ALONE)
        rows = sampled_rows(trainer.eval_dataset, args.per_device_eval_batch_size)
        batch = collated(trainer, rows, for_evaluation=True)
        inputs = {name: value for name, value in batch.items() if name not in trainer.head.label_names}
        inputs |= trainer.head.derived_inputs(trainer.model, batch)
        found = suggest_student(model, budget, inputs)
    pair = make_pair(teacher, StudentSource(sizes=found.sizes), data, args.seed)
    seconds_of_step, steps = _step_seconds(pair, args), num_steps(pair, args)
    seconds = 2 * steps * seconds_of_step
    cost = None if cost_per_hour is None else seconds / 3600 * cost_per_hour
    return Plan(asdict(budget), str(found), found.sizes, steps, seconds_of_step, seconds, cost)


def shrink(
    teacher: str,
    plan: Plan,
    data: Data,
    args: DistillationTrainingArguments,
    evidence: Evidence,
    resume: bool = False,
) -> Mapping[str, Any]:
    """The whole job with the student of the plan, its baseline and its exports included."""
    source = StudentSource(sizes=plan.sizes)
    return distil(
        teacher, source, data, args, evidence, with_baseline=data.has_labels, with_exports=True, resume=resume
    )


def kept_plan(
    teacher: str,
    budget: Budget,
    data: Data,
    args: DistillationTrainingArguments,
    evidence: Evidence,
    cost_per_hour: float | None = None,
) -> Plan:
    """The plan that an earlier run of the job has made, since another measurement might choose another student.

    Raises:
        ConfigurationError: if that run has begun with a student for another budget.
    """
    made_for = evidence.found.get("plan", {}).get("budget", asdict(budget))
    if made_for != asdict(budget):
        if "student before" in evidence.found:
            raise ConfigurationError(
                f"budget={asdict(budget)} is asked for, and the job has begun with a student for {made_for}. Take "
                "another output_dir for it."
            )
        del evidence.found["plan"]
    return Plan(**evidence.measured("plan", lambda: asdict(plan_of(teacher, budget, data, args, cost_per_hour))))


def num_steps(pair: Pair, args: DistillationTrainingArguments) -> int:
    """How many steps a training takes."""
    if args.max_steps > 0:
        return int(args.max_steps)
    batch_size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    with TemporaryDirectory() as folder:  # blocks of text are other rows than those of the data set
        dataset: Any = pair.trainer(args, output_dir=folder).train_dataset
    steps: int = math.ceil(math.ceil(len(dataset) / batch_size) * args.num_train_epochs)
    return steps


class _StepTimes(TrainerCallback):
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self._start = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def _step_seconds(pair: Pair, args: DistillationTrainingArguments) -> float:
    """The median seconds of a step, of a few on a copy of the student."""
    times = _StepTimes()
    with TemporaryDirectory() as folder:
        trial = replace(pair, student=copy.deepcopy(pair.student))
        trainer = trial.trainer(args, output_dir=folder, max_steps=TIMED_STEPS, disable_tqdm=True, **TRIAL)
        trainer.add_callback(times)
        trainer.train()
    return statistics.median(times.seconds[WARM_UP:])

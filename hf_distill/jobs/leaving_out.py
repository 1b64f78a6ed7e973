"""Which term helped: short trainings without each of them."""

from collections.abc import Mapping
from pathlib import Path
from shutil import rmtree
from typing import Any

from hf_distill import recipes
from hf_distill.errors import ConfigurationError
from hf_distill.jobs.evidence import Evidence
from hf_distill.jobs.models import StudentSource, make_student
from hf_distill.jobs.pairs import Pair
from hf_distill.jobs.training import TRIAL, measure, train, trainer_for
from hf_distill.jobs.tuning import TO_BE_HIGH, main_score
from hf_distill.objective import Objective
from hf_distill.report.results import LeaveOneOut
from hf_distill.training_args import DistillationTrainingArguments


DEFAULTS = {name: getattr(DistillationTrainingArguments, name) for name in ("temperature", "alpha")}
"""What the terms of an objective have, and not the arguments."""


def without_each(
    pair: Pair,
    source: StudentSource,
    args: DistillationTrainingArguments,
    objective: Objective | None,
    evidence: Evidence,
    num_steps: int,
    resume: bool = False,
) -> LeaveOneOut:
    """What the student scores after a short training with all terms, and without each of them.

    All start from the same weights and see the same rows.

    Args:
        pair: teacher, student and data.
        source: makes the student anew for each training.
        args: of the Trainer.
        objective: in place of the default one.
        evidence: where the measurements are kept.
        num_steps: of each training.
        resume: whether to go on with a training that was stopped.

    Raises:
        ConfigurationError: if the objective has one term alone, or there are no steps.
    """
    objective = check_terms(objective, args, num_steps)
    metric = main_score(pair)
    metric = "agreement" if metric == "loss" else metric  # losses of other terms are other numbers
    objectives = {"all terms": objective, **{f"without {name}": objective.without(name) for name in objective.terms}}
    scores = {}
    for name, each in objectives.items():

        def measured(name: str = name, each: Objective = each) -> Mapping[str, Any]:
            evidence.tell(f"The student is trained for {num_steps} steps to see which term helps: {name}.")
            folder = f"{args.output_dir}/trials/{name.replace('/', '-')}"
            student = make_student(source, pair.teacher, pair.data.task_name, args.seed)
            changes = {**TRIAL, **DEFAULTS, "max_steps": num_steps, "report_agreement": metric == "agreement"}
            trainer = trainer_for(
                student,
                pair.data,
                pair.student_reading,
                args,
                pair.teacher,
                each,
                pair.teacher_processor,
                output_dir=folder,
                **changes,
            )
            train(trainer, resume)
            found = measure(trainer)
            if evidence.writes:
                rmtree(folder)
            return found

        found = evidence.measured(f"{name}, {num_steps} steps", measured)
        scores[name.removeprefix("without ")] = found["scores"][metric]
    with_all = scores.pop("all terms")
    if evidence.writes:
        rmtree(Path(str(args.output_dir), "trials"), ignore_errors=True)
    return LeaveOneOut(num_steps, metric, metric in TO_BE_HIGH, with_all, scores)


def check_terms(objective: Objective | None, args: DistillationTrainingArguments, num_steps: int) -> Objective:
    """The objective, or the default one, of which there is something to leave out.

    Raises:
        ConfigurationError: if there is not.
    """
    objective = objective or recipes.hinton(args.temperature, args.alpha)
    if len(objective.terms) < 2 or num_steps < 1:
        raise ConfigurationError(
            f"leave_one_out={num_steps} trains for so many steps without each term of the objective, which has "
            f"{', '.join(objective.terms)}. Give it a number of at least 1, and an objective of at least two terms."
        )
    return objective

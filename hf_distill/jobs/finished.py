"""The report of models that are trained already."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_distill.errors import DistillationError
from hf_distill.export import MANIFEST
from hf_distill.jobs.data import Data
from hf_distill.jobs.exporting import EXPORTS, programs_in
from hf_distill.jobs.models import StudentSource, load_model
from hf_distill.jobs.pairs import Pair, make_pair
from hf_distill.jobs.reporting import check_report_folder, save_report
from hf_distill.jobs.training import load_state
from hf_distill.objective import Objective
from hf_distill.report import DistillationReport, distillation_report
from hf_distill.report.build import UNTRIED
from hf_distill.report.term_words import term_settings
from hf_distill.trainer import DistillationTrainer
from hf_distill.training_args import DistillationTrainingArguments


def report_on(
    teacher: str,
    student: str,
    baseline: str | None,
    data: Data,
    args: DistillationTrainingArguments,
    folder: str | Path,
    objective: Objective | None = None,
    exports: Sequence[str | Path] = (),
    **options: Any,
) -> DistillationReport:
    """Compare teacher, student and a student on the labels alone on the rows to evaluate on, and write the report.

    What the student's folder has of the curves of its training is drawn.

    Args:
        teacher: an id or a path, also of a cache.
        student: an id or a path.
        baseline: an id or a path of the student that learnt from the labels alone.
        data: with the rows to evaluate on, and those on which the terms are tried.
        args: of the Trainer.
        folder: to write.
        objective: by which the student was taught; without it the report says nothing of terms.
        exports: folders of programs made of the student; those in its folder `exports` are found by themselves.
        options: further arguments of `distillation_report`.

    Raises:
        ConfigurationError: if the folder holds something else than a report, or one of `exports` no program.
    """
    check_report_folder(Path(folder))
    beside = sorted(each.parent for each in Path(student, EXPORTS).glob(f"*/{MANIFEST}"))
    programs = programs_in([*exports, *beside], student, data, batch_size=args.per_device_eval_batch_size)
    pair = make_pair(teacher, StudentSource(student), data, args.seed)
    trainer, untried = _trainer(pair, args, objective)
    load_state(trainer, student)
    trainer.state.global_step = 0  # another Trainer's
    alone = None if baseline is None else load_model(baseline, data.task_name)
    report = distillation_report(trainer, alone, exports=programs.made, **options)
    settings = {**({} if objective is None else term_settings(objective)), **report.settings}
    notes = (note for note in report.notes if not (untried and note.startswith(UNTRIED)))
    report = replace(report, settings=settings, notes=(*notes, *untried, *programs.missing))
    save_report(report, Path(folder))
    return report


def _trainer(
    pair: Pair, args: DistillationTrainingArguments, objective: Objective | None
) -> tuple[DistillationTrainer, tuple[str, ...]]:
    """A Trainer that can try the terms of the objective, or one that tries none, and why."""
    untried: tuple[str, ...] = ()
    if objective is not None and objective.requires.labels and not pair.data.has_labels:
        untried = (f"{UNTRIED}: they read labels, and the rows have none.",)
    elif objective is not None:
        try:
            return pair.trainer(args, objective), untried
        except DistillationError as error:  # a cache may lack what the teacher that it was made of has told
            untried = (f"{UNTRIED}: {error}",)
    alone = replace(pair, data=replace(pair.data, train=None))  # by which the terms of another one would be tried
    return alone.trainer(args, alpha=args.alpha if pair.data.has_labels else 0.0), untried

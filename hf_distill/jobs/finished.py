"""The report of models that are trained already."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_distill.jobs.data import Data
from hf_distill.jobs.models import StudentSource, load_model
from hf_distill.jobs.pairs import make_pair
from hf_distill.jobs.reporting import check_report_folder, save_report
from hf_distill.jobs.training import load_state
from hf_distill.report import DistillationReport, distillation_report
from hf_distill.training_args import DistillationTrainingArguments


def report_on(
    teacher: str,
    student: str,
    baseline: str | None,
    data: Data,
    args: DistillationTrainingArguments,
    folder: str | Path,
    **options: Any,
) -> DistillationReport:
    """Compare teacher, student and a student on the labels alone on the rows to evaluate on, and write the report.

    How the student was trained is not asked for, so it says nothing of terms. What the student's folder has of the
    curves of its training is drawn.

    Args:
        teacher: an id or a path, also of a cache.
        student: an id or a path.
        baseline: an id or a path of the student that learnt from the labels alone.
        data: with the rows.
        args: of the Trainer.
        folder: to write.
        options: further arguments of `distillation_report`.

    Raises:
        ConfigurationError: if the folder holds something else than a report.
    """
    check_report_folder(Path(folder))
    rows = replace(data, train=None)  # by which the terms of another objective would be tried
    pair = make_pair(teacher, StudentSource(student), rows, args.seed)
    trainer = pair.trainer(args, alpha=args.alpha if data.has_labels else 0.0)
    load_state(trainer, student)
    trainer.state.global_step = 0  # another Trainer's
    alone = None if baseline is None else load_model(baseline, data.task_name)
    report = distillation_report(trainer, alone, **options)
    save_report(report, Path(folder))
    return report

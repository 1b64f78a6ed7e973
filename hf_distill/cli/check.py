"""`hf-distill check`: everything but the training."""

from tempfile import TemporaryDirectory
from typing import Any

from hf_distill.cli.arguments import CheckOptions, DataOptions, ObjectiveOptions, StudentOptions, TeacherOptions
from hf_distill.cli.calls import data_of, objective_of, source_of, task_of
from hf_distill.invariances import check_invariances
from hf_distill.jobs.pairs import make_pair
from hf_distill.rehearsal import preflight_report
from hf_distill.training_args import DistillationTrainingArguments


def run(
    teacher: TeacherOptions,
    student: StudentOptions,
    data: DataOptions,
    what: ObjectiveOptions,
    check: CheckOptions,
    args: DistillationTrainingArguments,
    said: dict[str, Any],
) -> int:
    """Rehearse and try, and print both; 1 if an equality is broken."""
    rows = data_of(data, task_of(teacher.task, teacher.teacher), args.seed)
    pair = make_pair(teacher.teacher, source_of(student), rows, args.seed)
    with TemporaryDirectory() as folder:
        trainer = pair.trainer(args, objective_of(what, args), output_dir=folder)
        preflight_report(trainer)
        report = check_invariances(trainer, check.num_rows)
    if args.process_index == 0:
        print(report)
    return 0 if report.held else 1

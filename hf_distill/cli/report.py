"""`hf-distill report`: finished models are compared."""

from tempfile import TemporaryDirectory
from typing import Any

from hf_distill.cli.arguments import DataOptions, FinishedOptions, ReportOptions, TeacherOptions
from hf_distill.cli.calls import objective_taught_by, rows_unseen_by, task_of
from hf_distill.jobs.finished import report_on
from hf_distill.report.wording import verdict
from hf_distill.training_args import DistillationTrainingArguments


def run(
    students: FinishedOptions,
    teacher: TeacherOptions,
    data: DataOptions,
    what: ReportOptions,
    said: dict[str, Any],
) -> None:
    """Compare, write, and say in a sentence or two what came of it."""
    rows = rows_unseen_by(students.student, data, task_of(teacher.task, teacher.teacher))
    with TemporaryDirectory() as folder:
        args = DistillationTrainingArguments(
            output_dir=folder,
            per_device_eval_batch_size=what.batch_size,
            use_cpu=what.use_cpu,
            dataloader_pin_memory=not what.use_cpu,
        )
        report = report_on(
            teacher.teacher,
            students.student,
            students.baseline,
            rows,
            args,
            what.output_dir,
            confidence=what.confidence,
            num_resamples=what.num_resamples,
            objective=objective_taught_by(students.student),
            exports=what.exports,
        )
    print(verdict(report))
    print(f"The report is in {what.output_dir}.")

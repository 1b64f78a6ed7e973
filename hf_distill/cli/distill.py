"""`hf-distill distill`: the whole job."""

from typing import Any

from hf_distill.cli.arguments import (
    BaselineOptions,
    DataOptions,
    ObjectiveOptions,
    ResumeOptions,
    StudentOptions,
    TeacherOptions,
)
from hf_distill.cli.calls import data_of, objective_of, source_of, task_of
from hf_distill.jobs.distilling import distil
from hf_distill.jobs.evidence import open_job, table
from hf_distill.training_args import DistillationTrainingArguments


def run(
    teacher: TeacherOptions,
    student: StudentOptions,
    data: DataOptions,
    what: ObjectiveOptions,
    comparison: BaselineOptions,
    job: ResumeOptions,
    args: DistillationTrainingArguments,
    said: dict[str, Any],
) -> None:
    """Distil, and print what came of it."""
    objective = objective_of(what, args)
    source = source_of(student)
    rows = data_of(data, task_of(teacher.task, teacher.teacher), args.seed)
    is_main = args.process_index == 0
    evidence = open_job(str(args.output_dir), said, job.resume, writes=is_main)
    found = distil(
        teacher.teacher,
        source,
        rows,
        args,
        evidence,
        objective,
        comparison.baseline,
        comparison.exports,
        comparison.leave_one_out,
        job.resume,
    )
    if is_main:
        print(table(found))
        print(f"The student is in {args.output_dir}, with {evidence.path.name}, a card and a report.")

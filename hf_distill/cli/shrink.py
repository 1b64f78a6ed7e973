"""`hf-distill shrink`: a student for a budget."""

from typing import Any

from hf_distill.cli.arguments import BudgetOptions, DataOptions, ResumeOptions, TeacherOptions
from hf_distill.cli.calls import data_of, task_of
from hf_distill.jobs.evidence import open_job, table
from hf_distill.jobs.shrinking import kept_plan, shrink
from hf_distill.students import Budget
from hf_distill.training_args import DistillationTrainingArguments


def run(
    teacher: TeacherOptions,
    budget: BudgetOptions,
    data: DataOptions,
    job: ResumeOptions,
    args: DistillationTrainingArguments,
    said: dict[str, Any],
) -> None:
    """Plan, say what it takes, and do it."""
    wanted = Budget.parse(budget.budget)
    rows = data_of(data, task_of(teacher.task, teacher.teacher), args.seed)
    is_main = args.process_index == 0
    evidence = open_job(str(args.output_dir), said, job.resume, writes=is_main)
    plan = kept_plan(teacher.teacher, wanted, rows, args, evidence, budget.cost_per_hour)
    if is_main:
        print(plan, flush=True)
    if budget.plan_only:
        return
    found = shrink(teacher.teacher, plan, rows, args, evidence, job.resume)
    if is_main:
        print(table(found))
        print(
            f"The student is in {args.output_dir}, with {evidence.path.name}, a card, a report and its programs for "
            "other runtimes."
        )

"""`hf-distill teacher`: a model is fine-tuned, to teach."""

from typing import Any

from hf_distill.cli.arguments import DataOptions, ModelOptions, ResumeOptions
from hf_distill.cli.calls import data_of, task_of
from hf_distill.jobs.distilling import fine_tune
from hf_distill.jobs.evidence import open_job, table
from hf_distill.jobs.models import load_processor, load_with_classes
from hf_distill.training_args import DistillationTrainingArguments


def run(
    model: ModelOptions,
    data: DataOptions,
    job: ResumeOptions,
    args: DistillationTrainingArguments,
    said: dict[str, Any],
) -> None:
    """Fine-tune, and print what came of it."""
    task = task_of(model.task, model.model)
    rows = data_of(data, task, args.seed)
    is_main = args.process_index == 0
    evidence = open_job(str(args.output_dir), said, job.resume, writes=is_main)
    trained = load_with_classes(model.model, task, rows.labels, args.seed)
    found = fine_tune(trained, load_processor(model.model, task), rows, args, evidence, job.resume)
    if is_main:
        print(table(found))
        print(f"The teacher is in {args.output_dir}, with {evidence.path.name}.")

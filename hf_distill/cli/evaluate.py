"""`hf-distill evaluate`: a model is measured."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hf_distill.cli.arguments import DataOptions, EvaluationOptions, ModelOptions, OptionalTeacherOptions
from hf_distill.cli.calls import rows_unseen_by, task_of
from hf_distill.jobs.distilling import compare
from hf_distill.jobs.evidence import table
from hf_distill.training_args import DistillationTrainingArguments
from hf_distill.whole_files import write_whole


def run(
    model: ModelOptions,
    teacher: OptionalTeacherOptions,
    data: DataOptions,
    evaluation: EvaluationOptions,
    said: dict[str, Any],
) -> None:
    """Measure, print, and write if asked to."""
    task = task_of(model.task, model.model)
    rows = rows_unseen_by(model.model, data, task)
    with TemporaryDirectory() as folder:
        args = DistillationTrainingArguments(
            output_dir=folder, per_device_eval_batch_size=evaluation.batch_size, use_cpu=evaluation.use_cpu
        )
        found = compare(model.model, teacher.teacher, rows, args)
    if args.process_index == 0:
        print(table(found))
        if evaluation.output_file is not None:
            write_whole(Path(evaluation.output_file), json.dumps(found, indent=2) + "\n")

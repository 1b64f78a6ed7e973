"""A teacher asked once about the rows of a job."""

from pathlib import Path
from typing import Any

import torch

from hf_distill.jobs.data import Data
from hf_distill.jobs.models import load_processor, load_trained
from hf_distill.teachers import CachedTeacher, cache_teacher


def cache(
    name_or_path: str, data: Data, path: str | Path, device: torch.device | str = "cpu", **options: Any
) -> CachedTeacher:
    """What a teacher says about the rows of a job, to train on and to evaluate on, by [`cache_teacher`].

    Called again, it goes on with what was begun.

    Args:
        name_or_path: of the teacher.
        data: with the rows.
        path: the folder to write.
        device: where the teacher answers.
        options: further arguments of `cache_teacher`.
    """
    model: Any = load_trained(name_or_path, data.task_name, dtype="auto")
    processor = load_processor(name_or_path, data.task_name)
    rows = data.trainer_arguments(data.reading(model, processor))
    return cache_teacher(
        model.to(device),
        rows["train_dataset"],
        path,
        eval_dataset=rows["eval_dataset"],
        processing_class=processor,
        data_collator=rows["data_collator"],
        remove_unused_columns=not data.task.reads_raw,
        **options,
    )

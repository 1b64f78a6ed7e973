"""Trainers over tiny detectors."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hf_distill import BoxTerm, DistillationTrainer, Objective, SoftTargetTerm
from tests.gradients import GradientRecorder
from tests.tiny_detectors import ImageCollator, images_with_objects
from tests.tiny_trainers import loss_logs, trainer_for


TEMPERATURE = 2.0
TEACHER_ONLY = Objective({"soft": (0.7, SoftTargetTerm(TEMPERATURE)), "boxes": (0.4, BoxTerm())})


def detection_trainer(
    folder: Path,
    student: nn.Module,
    teacher: Any,
    kind: str,
    rows: list[dict[str, Any]] | None = None,
    dtype: torch.dtype = torch.float32,
    **changes: Any,
) -> DistillationTrainer:
    """A trainer for two steps of four images.

    Args:
        kind: that of student or teacher; of the one that reads a mask of what is image, if one does.
    """
    return trainer_for(
        folder,
        student=student.to(dtype),
        teacher=teacher.to(dtype) if isinstance(teacher, nn.Module) else teacher,
        rows=images_with_objects() if rows is None else rows,
        data_collator=ImageCollator(kind, dtype),
        **changes,
    )


def recorded_gradient(
    folder: Path, student: nn.Module, teacher: Any, kind: str, **changes: Any
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The gradient and the logs of one step in float64 that learns from the teacher alone."""
    recorder = GradientRecorder()
    options = {"objective": TEACHER_ONLY, "learning_rate": 0.0, "max_steps": 1, "per_device_train_batch_size": 4}
    options["rows"] = unlabelled(images_with_objects())
    trainer = detection_trainer(
        folder, student, teacher, kind, dtype=torch.float64, callbacks=[recorder], **{**options, **changes}
    )
    trainer.train()
    return recorder.steps[0], loss_logs(trainer)[0]


def unlabelled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"pixel_values": row["pixel_values"]} for row in rows]

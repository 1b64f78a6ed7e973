"""Trainers over tiny models and rows, and what they wrote down."""

from pathlib import Path
from typing import Any

import torch

from hf_distill import DistillationTrainer
from tests.gradients import arguments
from tests.tiny_models import PaddingCollator, model_for, rows_for


OPTIONS = {
    "objective",
    "head",
    "processing_class",
    "eval_dataset",
    "data_collator",
    "model_init",
    "compute_loss_func",
    "compute_metrics",
}
"""What goes to the trainer; the arguments get everything else."""


def trainer_for(
    output_dir: Path,
    task: str = "single_label",
    student: Any = None,
    teacher: Any = None,
    rows: Any = None,
    callbacks: Any = None,
    **changes: Any,
) -> DistillationTrainer:
    """A trainer for two steps of four rows. `teacher=False` leaves it out."""
    options = {name: changes.pop(name) for name in OPTIONS & changes.keys()}
    trainer_class = changes.pop("trainer_class", DistillationTrainer)
    if "objective" in options:
        changes |= {"temperature": 2.0, "alpha": 0.5}
    if student is None and "model_init" not in options:
        student = model_for(task, 1)
    if teacher is None:
        teacher = model_for(task, 2)
    defaults = {"learning_rate": 1e-2, "max_steps": 2, "per_device_train_batch_size": 4}
    trainer: DistillationTrainer = trainer_class(
        model=student,
        teacher=None if teacher is False else teacher,
        args=arguments(output_dir, **{**defaults, **changes}),
        train_dataset=rows_for(task) if rows is None else rows,
        callbacks=callbacks,
        **{"data_collator": PaddingCollator(), **options},
    )
    return trainer


def unlabelled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"input_ids": row["input_ids"]} for row in rows]


def loss_logs(trainer: DistillationTrainer) -> list[dict[str, float]]:
    """What was logged about steps, not about the whole run or an evaluation."""
    return [log for log in trainer.state.log_history if "loss" in log]


def check_that_the_student_alone_learns(trainer: DistillationTrainer) -> None:
    """Train: the student's weights move, the teacher's do not, and the loss falls."""
    student, teacher = (
        {name: value.clone() for name, value in model.state_dict().items()}
        for model in (trainer.model, trainer.teacher.model)
    )
    trainer.train()
    assert any(not torch.equal(value, student[name]) for name, value in trainer.model.state_dict().items())
    assert all(torch.equal(value, teacher[name]) for name, value in trainer.teacher.model.state_dict().items())
    losses = [log["loss"] for log in loss_logs(trainer)]
    assert losses[-2] + losses[-1] < losses[0] + losses[1]


def float32(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose inputs of floats are those of a model in float32."""
    return [{name: value.float() if torch.is_tensor(value) else value for name, value in row.items()} for row in rows]

"""One accumulated step of the Trainer, and the gradient that it made."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback

from hf_distill import DistillationTrainer, DistillationTrainingArguments
from tests.tiny_models import WITHOUT_OWN_LOSS, PaddingCollator


TEMPERATURE, ALPHA = 3.0, 0.3


def alpha_of(head: str) -> float:
    """The weight of the labels, for a head that has a loss for them."""
    return 0.0 if head in WITHOUT_OWN_LOSS else ALPHA


class GradientRecorder(TrainerCallback):
    """Keeps a copy of every gradient just before the optimizer would use it."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        named = ((name.removeprefix("module."), parameter) for name, parameter in model.named_parameters())
        self.steps.append({name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None})


def arguments(output_dir: Path, **changes: Any) -> DistillationTrainingArguments:
    """Arguments of a run in row order that changes no weight, so that every step starts from the same student."""
    defaults: dict[str, Any] = {
        "learning_rate": 0.0,
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "temperature": TEMPERATURE,
        "alpha": ALPHA,
    }
    return DistillationTrainingArguments(output_dir=str(output_dir), **{**defaults, **changes})


def recorded_run(
    output_dir: Path,
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    rows: list[dict[str, Any]],
    batch_size: int,
    accumulation: int = 1,
    extra_padding: int = 0,
    **changes: Any,
) -> tuple[list[dict[str, Tensor]], list[dict[str, float]], DistillationTrainer]:
    """The gradients and logs of one epoch in float64."""
    recorder = GradientRecorder()
    trainer = DistillationTrainer(
        model=student.double(),
        teacher=teacher.double(),
        args=arguments(
            output_dir,
            num_train_epochs=1,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            **changes,
        ),
        data_collator=PaddingCollator(extra_padding),
        train_dataset=rows,
        callbacks=[recorder],
    )
    trainer.train()
    return recorder.steps, [log for log in trainer.state.log_history if "loss" in log], trainer


def relative_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """‖ours − theirs‖ / ‖theirs‖ over all parameters together."""
    assert ours.keys() == theirs.keys()
    difference = torch.stack([(ours[name] - theirs[name]).norm() for name in ours]).norm()
    return (difference / torch.stack([theirs[name].norm() for name in ours]).norm()).item()

"""What a training step takes, of memory and of time, measured on one micro-batch before the first step."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from hf_distill.memory import Memory
from hf_distill.peak_memory import free_bytes, peak_bytes
from hf_distill.stopwatch import seconds_of
from hf_distill.types import Batch


@dataclass(frozen=True)
class StepCost:
    """What a step takes on one process, by a micro-batch with the number of rows and the lengths of the sample."""

    peak: int
    """The most bytes that are held at once: weights, states of the optimizer, gradients, activations, and what the
    losses are computed in."""
    to_come: int
    """Of these, the bytes that are not held yet before the first step: all but the weights."""
    free: int | None
    """Bytes that the device has left for them; None where it does not say."""
    seconds: float
    """Of its micro-batches. Loading of data and the optimizer come on top."""
    num_steps: int
    """Of the run; 0 where it is not known yet."""
    is_chunked: bool | None = None
    """Whether the logits of all positions are never built; None where they are no scores over a vocabulary."""

    @property
    def fits(self) -> bool:
        return self.free is None or self.to_come <= self.free

    def __str__(self) -> str:
        free = "" if self.free is None else f", and {self.free / 2**20:,.0f} are free"
        steps = f"; {self.num_steps:,} steps take {duration(self.seconds * self.num_steps)}" if self.num_steps else ""
        logits = {None: "", True: " (logits a chunk at a time)", False: " (logits whole)"}[self.is_chunked]
        return (
            f"a step at its peak, MiB: {self.peak / 2**20:,.0f}, of which {self.to_come / 2**20:,.0f} are to come"
            f"{free}{logits}\na step takes {self.seconds:.3g} seconds{steps}"
        )


def step_cost(trainer: Any, batch: Batch, memory: Memory, is_chunked: bool | None = None) -> StepCost | None:
    """Forward and backward of a micro-batch of a [`DistillationTrainer`], as in training.

    Gradients, modes and logs are put back. With accumulation a second pass is measured, which finds the gradients of
    the first.

    Returns:
        None where a gradient that is computed is also used: by other processes, or by an optimizer that steps within
        the backward pass.
    """
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    is_used = any(getattr(parameter, "_post_accumulate_grad_hooks", None) for parameter in trained)
    if trainer.accelerator.num_processes > 1 or is_used or not trained:
        return None
    accumulated = trainer.args.gradient_accumulation_steps
    seconds = 0.0

    def passes() -> None:
        nonlocal seconds
        for _ in range(min(accumulated, 2)):
            seconds = seconds_of(lambda: trainer.compute_loss(trainer.model, batch).backward(), trainer.args.device)

    with _leaving_no_gradient(trainer, trained):
        trainer.model.train()
        to_come = peak_bytes(passes, trainer.args.device) + memory.optimizer
    return StepCost(
        peak=memory.student + memory.teacher + to_come,
        to_come=to_come,
        free=free_bytes(trainer.args.device),
        seconds=seconds * accumulated,
        num_steps=trainer.state.max_steps,
        is_chunked=is_chunked,
    )


@contextmanager
def _leaving_no_gradient(trainer: Any, trained: list[nn.Parameter]) -> Iterator[None]:
    """Run the body without gradients, then put back those that were there, and what was logged."""
    gradients, logged = [parameter.grad for parameter in trained], trainer._log_window.clone()
    for parameter in trained:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.grad = gradient
        trainer._log_window = logged


def duration(seconds: float) -> str:
    """In the unit that one would say it in."""
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 1:
        return f"{hours:.1f} hours"
    return f"{minutes:.1f} minutes" if minutes >= 1 else f"{seconds:.0f} seconds"

"""Batches to try things on before training, in a way that leaves no trace in the training."""

import copy
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from hf_distill.sharding import is_sharded
from hf_distill.spread_rows import spread_rows
from hf_distill.teachers import online_teachers


NUM_AT_ONCE = 2**20
"""Of a gradient, the numbers that are held in float64."""


def sampled_rows(dataset: Any, count: int) -> list[Any]:
    """Up to `count` rows, spread evenly over a data set, or the first ones of a stream.

    A stream is read through `take`, or from a copy, so that it can still be read from its start.

    Returns:
        No rows if there is no data set, or if a stream cannot be copied.
    """
    if isinstance(dataset, Mapping):
        dataset = next(iter(dataset.values()), None)
    if dataset is None:
        return []
    if not isinstance(dataset, IterableDataset) and hasattr(dataset, "__getitem__"):
        return [dataset[row] for row in spread_rows(count, len(dataset))]
    if hasattr(dataset, "take"):
        return list(dataset.take(count))
    try:
        return list(islice(copy.deepcopy(dataset), count))
    except TypeError:  # it holds an open file or a generator
        return []


def has_shards(trainer: Any) -> bool:
    """Whether weights of student or teacher are split over processes, which must then call it together."""
    models = [trainer.model, *(teacher.model for teacher in online_teachers(trainer.teacher))]
    return trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled or any(map(is_sharded, models))


def collated(trainer: Any, rows: list[Any], for_evaluation: bool = False) -> dict[str, Any]:
    """A batch of these rows on the device of `trainer`, as its data loader would make it."""
    collator = trainer.collator_for(_with_own_random_state(trainer.data_collator), is_training=not for_evaluation)
    collator = trainer._get_collator_with_removed_columns(collator)
    batch: dict[str, Any] = trainer._prepare_inputs(collator(rows))
    return batch


@contextmanager
def leaving_no_trace(student: nn.Module) -> Iterator[None]:
    """Run the body with the student in eval mode, then put back random state, modes and buffers, bit for bit.

    Recurrent layers stay in train mode, since cuDNN computes no gradient for them otherwise.
    """
    modes = {module: module.training for module in student.modules()}
    buffers = {buffer: buffer.clone() for buffer in student.buffers()}
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices), torch.enable_grad():
            student.eval()
            for module in modes:
                if isinstance(module, nn.RNNBase):
                    module.training = modes[module]
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for buffer, value in buffers.items():
                buffer.copy_(value)
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def gradient_obstacle(student: nn.Module) -> str | None:
    """Why no gradient can be tried that leaves no trace."""
    if any(hasattr(module, "backward_pass") for module in student.modules()):
        return f"{type(student).__name__} has reversible layers, which compute gradients in train mode alone"
    return None


def gradient(loss: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """Of the loss by each parameter, zeros where it does not depend on it. The graph is kept."""
    if not loss.requires_grad:
        return [torch.zeros_like(parameter) for parameter in parameters]
    return list(torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True))


def norm(gradients: list[Tensor]) -> float:
    """The Euclidean norm over all of them together."""
    return float(dot(gradients, gradients) ** 0.5)


def dot(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The sum of all products, in float64, in which no whole gradient of a vocabulary is ever held."""
    pieces = (
        torch.dot(mine.double(), yours.double())
        for part, other in zip(ours, theirs, strict=True)
        for mine, yours in zip(part.flatten().split(NUM_AT_ONCE), other.flatten().split(NUM_AT_ONCE), strict=True)
    )
    return sum((piece.item() for piece in pieces), 0.0)


def _with_own_random_state(collator: Any) -> Any:
    """A shallow copy whose random generators are copies too."""
    twin = copy.copy(collator)
    for name, value in vars(twin).items() if hasattr(twin, "__dict__") else ():
        if isinstance(value, torch.Generator):
            setattr(twin, name, torch.Generator(value.device).set_state(value.get_state()))
        elif isinstance(value, (np.random.Generator, np.random.RandomState, random.Random)):
            setattr(twin, name, copy.deepcopy(value))
    return twin

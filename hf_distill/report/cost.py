"""What a model costs: weights, operations, time and memory of a forward pass."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from hf_distill.report.results import Cost, Timing
from hf_distill.stopwatch import seconds_of


Inputs = Mapping[str, Any]

MIN_RUNS, MAX_RUNS = 5, 100
SECONDS = 0.5
"""For which one size is timed, unless it takes MIN_RUNS longer."""

CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""The attention of CPUs, which torch's counter does not know."""


def cost_of(
    model: nn.Module, inputs: Inputs | None, batch_sizes: Sequence[int] = (), lengths: Sequence[int] = ()
) -> Cost:
    """The cost of a model, by forward passes without gradient.

    Args:
        inputs: what it is called with, of some rows; None measures weights alone.
        batch_sizes: at which it is timed.
        lengths: tokens of a row at which it is timed; none for rows that are no text.
    """
    parameters, weights_bytes = sum(p.numel() for p in model.parameters()), weights_size(model)
    if inputs is None:
        return Cost(parameters, weights_bytes)
    with torch.no_grad():
        flops = flops_of(model, resized(inputs, 1, max(lengths, default=None)))
        timings = tuple(
            _timing(model, resized(inputs, size, length), size, length)
            for length in (lengths or (None,))
            for size in batch_sizes
        )
        largest = resized(inputs, max(batch_sizes, default=1), max(lengths, default=None))
        return Cost(parameters, weights_bytes, flops, peak_memory(model, largest), timings)


def weights_size(model: nn.Module) -> int:
    """Bytes of the weights, those that are shared once, which is what their file takes but for its header."""
    storages = {}
    for tensor in model.state_dict().values():
        if isinstance(tensor, Tensor):
            storages[tensor.untyped_storage().data_ptr() or id(tensor)] = tensor.untyped_storage().nbytes()
    return sum(storages.values())


def flops_of(model: nn.Module, inputs: Inputs) -> float:
    """Floating point operations of a forward pass: matrix products, convolutions and attention."""
    counter = FlopCounterMode(display=False, custom_mapping={CPU_ATTENTION: _attention_flops})
    with counter:
        model(**inputs)
    return float(counter.get_total_flops())


def peak_memory(model: nn.Module, inputs: Inputs) -> int | None:
    """Bytes of the weights and of what a forward pass holds at most beside them; None on devices that do not tell."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
    device = next(model.parameters()).device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        model(**inputs)
        torch.cuda.synchronize(device)
        return weights + torch.cuda.max_memory_allocated(device) - before
    return weights + _peak_on_cpu(model, inputs) if device.type == "cpu" else None


def resized(inputs: Inputs, batch_size: int, length: int | None) -> dict[str, Any]:
    """The inputs with that many rows, of that many real tokens, repeated or cut as need be."""
    ids = inputs.get("input_ids")
    old_length = ids.shape[1] if isinstance(ids, Tensor) and ids.ndim == 2 else None
    made = {}
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.ndim:
            value = value[torch.arange(batch_size, device=value.device) % len(value)]
            is_of_tokens = length is not None and value.ndim > 1 and value.shape[1] == old_length
            if is_of_tokens and length is not None and not name.startswith("decoder_"):
                value = value[:, torch.arange(length, device=value.device) % value.shape[1]]
                value = torch.ones_like(value) if name == "attention_mask" else value
        made[name] = value
    return made


def _timing(model: nn.Module, inputs: Inputs, batch_size: int, length: int | None) -> Timing:
    device = next(model.parameters()).device
    seconds: list[float] = []
    for _ in range(2):
        model(**inputs)
    while len(seconds) < MIN_RUNS or (sum(seconds) < SECONDS and len(seconds) < MAX_RUNS):
        seconds.append(seconds_of(lambda: model(**inputs), device))
    p50, p95 = np.quantile(seconds, [0.5, 0.95])
    return Timing(batch_size, length, float(p50 * 1000), float(p95 * 1000), float(batch_size / p50))


def _attention_flops(query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    number: int = sdpa_flop_count(query, key, value)
    return number


def _peak_on_cpu(model: nn.Module, inputs: Inputs) -> int:
    with (
        _quiet_profiler(),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler,
    ):
        model(**inputs)
    results = profiler.profiler.kineto_results.events() if profiler.profiler is not None else ()
    now, peak = 0, 0
    for event in results:
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


@contextmanager
def _quiet_profiler() -> Iterator[None]:
    """The profiler writes to the terminal when it starts and stops."""
    before = os.environ.get("KINETO_LOG_LEVEL")
    os.environ["KINETO_LOG_LEVEL"] = "99"
    try:
        yield
    finally:
        if before is None:
            del os.environ["KINETO_LOG_LEVEL"]
        else:
            os.environ["KINETO_LOG_LEVEL"] = before

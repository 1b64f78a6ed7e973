"""How fast teacher and students answer, measured in turn."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from measuring import in_turn, ratio
from torch import Tensor
from transformers import PreTrainedModel


BATCH_SIZE, NUM_BATCHES, NUM_SINGLE = 64, 4, 50


def seconds(model: PreTrainedModel, batches: Sequence[dict[str, Tensor]]) -> float:
    start = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            model(**batch)
    return time.perf_counter() - start


def speeds(
    models: dict[str, PreTrainedModel], rows: Any, collator: Callable[..., Any], rounds: int
) -> dict[str, dict[str, float]]:
    """Milliseconds for one row, rows a second in batches, and both against the first model, by rounds A B C A B C …

    Weights and arithmetic are float32.
    """
    rows = [{name: row[name] for name in ("input_ids", "attention_mask")} for row in rows]
    single = [dict(collator([row])) for row in rows[:: max(1, len(rows) // NUM_SINGLE)]]
    rows = rows[:: max(1, len(rows) // (NUM_BATCHES * BATCH_SIZE))]
    many = [dict(collator(rows[start : start + BATCH_SIZE])) for start in range(0, len(rows), BATCH_SIZE)]
    first = next(iter(models))
    found: dict[str, dict[str, float]] = {name: {} for name in models}
    for kind, batches in {"latency": single, "throughput": many}.items():
        contenders: dict[str, Callable[[], float]] = {
            name: partial(seconds, model, batches) for name, model in models.items()
        }
        in_turn(contenders, 1)  # the first calls allocate
        figures = in_turn(contenders, rounds)
        for name in models:
            median = statistics.median(figures[name])
            number = {"latency": 1000 * median / len(single), "throughput": len(rows) / median}[kind]
            found[name] |= {kind: number, f"{kind}_gain": ratio(figures, first, name)}
    return found

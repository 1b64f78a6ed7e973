"""Exact means over a whole evaluation set: sums over counts, not means of batch means."""

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from hf_distill.heads.base import num_rows
from hf_distill.types import Batch, TermLoss


class Tally:
    """Sums and counts by name, kept on the device until they are asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, losses: Mapping[str, TermLoss]) -> None:
        """Add one batch."""
        for name, (total, count) in losses.items():
            precise = torch.float32 if total.device.type == "mps" else torch.float64
            pair = torch.stack((total.detach().to(precise), count.to(total.device, precise)))
            self._sums[name] = self._sums[name] + pair if name in self._sums else pair

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Sum over count of each name, over all processes; NaN where nothing was counted."""
        if not self._sums:
            return {}
        sums = accelerator.reduce(torch.stack(list(self._sums.values())), "sum")
        return dict(zip(self._sums, (sums[:, 0] / sums[:, 1]).tolist(), strict=True))


def is_packed(batch: Batch) -> bool:
    """Whether an entry holds something else than one value for each row, such as the patches of all rows' images, so
    that rows cannot be picked out of the batch."""
    return any(isinstance(value, Tensor) and value.ndim and len(value) != num_rows(batch) for value in batch.values())


def first_rows(batch: Batch, count: int) -> dict[str, Any]:
    """The batch without what comes after its first `count` rows."""
    size = num_rows(batch)

    def cut(value: Any) -> Any:
        has_rows = isinstance(value, list) or (isinstance(value, Tensor) and value.ndim > 0)
        return value[:count] if has_rows and len(value) == size else value

    return {name: cut(value) for name, value in batch.items()}

"""One vector a row, out of those of its tokens."""

from typing import Literal

import torch
from torch import Tensor

from hf_distill.functional.masking import keep_counted
from hf_distill.functional.precision import computation_dtype


Pooling = Literal["first", "last", "mean"]


def pooled_states(states: Tensor, real: Tensor | None, pooled: Pooling) -> Tensor:
    """`(B, H)`: one vector a row, that of the first or the last real token, or the mean of all."""
    real = torch.ones_like(states[..., 0], dtype=torch.bool) if real is None else real
    if pooled == "mean":
        total = keep_counted(states, real).sum(dim=1, dtype=computation_dtype(states))
        return total / real.sum(dim=1, keepdim=True).clamp(min=1)
    # argmax takes the first of several
    index = real.int().argmax(1) if pooled == "first" else real.shape[1] - 1 - real.int().flip(1).argmax(1)
    return states.take_along_dim(index[:, None, None], dim=1).squeeze(1)


def rows_with_tokens(real: Tensor | None) -> Tensor | None:
    """Bool `(B,)`: the rows that have a vector to be compared."""
    return None if real is None else real.any(dim=1)

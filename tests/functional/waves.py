"""Numbers that look random and are the same everywhere: for values pinned from other implementations."""

import torch
from torch import Tensor


def wave(*shape: int, step: float, scale: float = 1.0) -> Tensor:
    """scale · sin(step · k) for k = 0, 1, 2 …, in float64."""
    count = torch.Size(shape).numel()
    return scale * torch.sin(step * torch.arange(count, dtype=torch.float64)).reshape(shape)

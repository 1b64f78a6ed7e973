"""Which positions count: checking a mask, and taking the other positions out of values and gradients."""

import torch
from torch import Tensor

from hf_distill.errors import ConfigurationError


def check_mask(mask: Tensor | None, position_shape: torch.Size) -> None:
    """Refuses a mask that does not say True or False for each position.

    Raises:
        ConfigurationError: if `mask` is not bool, or its shape is not `position_shape`.
    """
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise ConfigurationError(
            f"mask must be bool, True where a position counts, got {mask.dtype}. Pass `mask=mask.bool()`."
        )
    if mask.shape != position_shape:
        raise ConfigurationError(
            f"mask has shape {tuple(mask.shape)}, but the positions that are compared have the shape "
            f"{tuple(position_shape)}. Pass a `mask` of that shape."
        )


def keep_counted(values: Tensor, mask: Tensor | None, *, overwrite: bool = False) -> Tensor:
    """`values` with exact zeros at positions that do not count, whatever stood there, NaN and infinity included.

    No gradient passes through a position that does not count: it is exactly 0, not a product with 0, which would
    leave NaN where the values are not finite. So it has to come first in a computation, not last.

    Args:
        values: `(…, *)`, any number of axes after those of the mask.
        mask: bool `(…)`, True where a position counts. None counts all.
        overwrite: write into `values` instead of a copy, for a tensor that nobody else holds.

    Returns:
        `(…, *)`, the dtype of `values`.

    Example:

        >>> import torch
        >>> keep_counted(torch.tensor([[1.0, 2.0], [float("nan"), 4.0]]), torch.tensor([True, False]))
        tensor([[1., 2.],
                [0., 0.]])
    """
    if mask is None:
        return values
    excluded = (~mask).reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
    return values.masked_fill_(excluded, 0.0) if overwrite else values.masked_fill(excluded, 0.0)

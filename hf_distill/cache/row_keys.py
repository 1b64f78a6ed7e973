"""By what a row is found: its content, without padding."""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


KEY_SIZE = 16
"""Bytes of a key. Among 10^10 rows, two share one by chance with a probability of 10^-19."""


class RealSpan(NamedTuple):
    """Where the padding of each row begins and ends."""

    shape: tuple[int, ...]
    """`(B, …, L)`, of the mask; a tensor that is padded alike has it too, and may have further axes."""
    start: NDArray[Any]
    """`(B,)`, the first place that is no padding."""
    stop: NDArray[Any]
    """`(B,)`, one past the last such place."""

    @classmethod
    def of(cls, real: Tensor, from_first: bool = True) -> "RealSpan":
        """The span of a mask `(B, …, L)` that is True at what is real, in any of the axes between.

        Args:
            from_first: whether what stands before the first real place is padding too.
        """
        counted = real.flatten(1, -2).any(1).numpy() if real.ndim > 2 else real.numpy()
        length, exists = counted.shape[1], counted.any(1)
        start = np.where(exists & from_first, counted.argmax(1), 0)
        stop = np.where(exists, length - counted[:, ::-1].argmax(1), 0)
        return cls(tuple(real.shape), start, stop)


def row_keys(entries: Mapping[str, tuple[Tensor, RealSpan | None]]) -> list[bytes]:
    """A key for each row of a batch: a hash of everything that was given for it, without padding.

    So a row has one key in any batch, padded on either side to any length. Integers and bools are hashed as int64 and
    floats as float32, whatever they are kept in.

    Args:
        entries: name → `(B, …)`, on the CPU, and the span of it that is no padding; None if all is real.

    Example:

        >>> mask = torch.tensor([[True, True, False]])
        >>> padded = row_keys({"input_ids": (torch.tensor([[7, 8, 0]]), RealSpan.of(mask))})
        >>> padded == row_keys({"input_ids": (torch.tensor([[7, 8]]), None)})
        True
    """
    columns = [(name.encode(), _canonical(tensor), span) for name, (tensor, span) in sorted(entries.items())]
    keys = []
    for row in range(len(columns[0][1])):
        content = hashlib.blake2b(digest_size=KEY_SIZE)
        for name, values, span in columns:
            value = values[row]
            if span is not None:
                place = (slice(None),) * (len(span.shape) - 2)
                value = value[(*place, slice(span.start[row], span.stop[row]))]
            content.update(b"%s %s %r " % (name, value.dtype.str.encode(), value.shape))
            content.update(value.tobytes())
        keys.append(content.digest())
    return keys


def _canonical(tensor: Tensor) -> NDArray[Any]:
    dtype = torch.float32 if tensor.is_floating_point() else torch.int64
    array = tensor.detach().to(dtype).numpy()
    return array.astype(array.dtype.newbyteorder("<"), copy=False)

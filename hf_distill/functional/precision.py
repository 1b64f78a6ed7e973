"""The precision that distances are computed in, whatever that of the models."""

import torch
from torch import Tensor


def computation_dtype(*tensors: Tensor) -> torch.dtype:
    """Float32, or float64 if any of the tensors is.

    Example:

        >>> computation_dtype(torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.float16))
        torch.float32
    """
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def without_autocast(tensor: Tensor) -> torch.autocast:
    """A context in which products of matrices keep their dtype, which autocast would lower on the tensor's device."""
    return torch.autocast(tensor.device.type, enabled=False)

"""How much memory a call holds at its peak, and how much a device has left for it."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


CONTAINER = Path("/sys/fs/cgroup")
"""Where Linux (cgroup v2) tells a container its limits."""


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int:
    """The most that a call holds at once of what it makes on a device, in bytes.

    On a CUDA device its allocator is asked. Elsewhere tensors are counted, from the operation that makes them until
    nothing refers to their storage any more.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return int(torch.cuda.max_memory_allocated(device) - before)
    counting = _Counting(device)
    with counting:
        call()
    return counting.peak


def free_bytes(device: torch.device) -> int | None:
    """What is left of a device's memory, with what its allocator keeps for later; None where nobody says."""
    if device.type == "cpu":
        return min([int(psutil.virtual_memory().available), *_left_in_container()])
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + kept)
    return None


def _left_in_container() -> list[int]:
    """What a limit on the memory of a container leaves, if there is one. Files that were read can be let go."""
    try:
        limit, used, parts = ((CONTAINER / f"memory.{name}").read_text() for name in ("max", "current", "stat"))
        files = dict(line.split() for line in parts.splitlines())["inactive_file"]
        return [int(limit) - int(used) + int(files)]
    except (OSError, ValueError, KeyError):  # there are no such files, or the limit is "max"
        return []


class _Counting(TorchDispatchMode):
    """Adds up the storages that operations make, while they are there."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.held = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        for storage in self._storages(made) - self._storages((args, kwargs)):  # without views, and what is written to
            self.held += storage.nbytes()
            weakref.finalize(storage, self._let_go, storage.nbytes())
        self.peak = max(self.peak, self.held)
        return made

    def _storages(self, values: Any) -> set[torch.UntypedStorage]:
        tensors = [each for each in tree_leaves(values) if isinstance(each, Tensor)]
        return {each.untyped_storage() for each in tensors if each.device.type == self.device.type}

    def _let_go(self, num_bytes: int) -> None:
        self.held -= num_bytes

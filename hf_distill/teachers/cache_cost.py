"""What building a cache takes, said before it is taken."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_distill.cache import ROW_FRAME_SIZE
from hf_distill.cache.shards import Row
from hf_distill.errors import ConfigurationError
from hf_distill.peak_memory import free_bytes


logger = logging.get_logger(__name__)


class Progress:
    """A bar of the rows that are answered, with the bytes they take and those that all are going to take.

    Args:
        num_rows: of the build.
        largest: the bytes of all, before compression.
    """

    def __init__(self, name: str, num_rows: int, largest: float) -> None:
        self.num_rows, self.largest = num_rows, largest
        self.done = self.num_bytes = 0
        self.bar = logging.tqdm(total=num_rows, desc=f"Asking {name}", unit="row")
        self.bar.set_postfix_str(str(self))

    def __str__(self) -> str:
        """By the rows that were answered, which were compressed, as soon as there are any."""
        if not self.done:
            return f"0 of at most {in_megabytes(self.largest)}"
        return f"{in_megabytes(self.num_bytes)} of about {in_megabytes(self.num_bytes / self.done * self.num_rows)}"

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.close()

    def counted(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows of a batch."""
        before = self.done
        for row in rows:
            self.done += 1
            self.num_bytes += ROW_FRAME_SIZE + len(row.answer) + len(row.features)
            yield row
        self.bar.set_postfix_str(str(self), refresh=False)
        self.bar.update(self.done - before)


def warn_of_room(folder: Path, num_bytes: float) -> None:
    """A disk may be too small for what comes, before compression."""
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        logger.warning(
            f"The answers take at most {in_megabytes(num_bytes)}, and the disk of {str(folder)!r} has "
            f"{in_megabytes(free)} left. If it is full, the build ends, and goes on when it is called again. Keep "
            "less: `top_k`, `dtype`, `layers`, `pooled`."
        )


def check_logits_fit(model: PreTrainedModel, mask: torch.Tensor, batch_size: int) -> None:
    """The scores of a batch over a vocabulary fit into the memory that is left.

    Args:
        mask: `(B, L)`, the positions that are asked about.

    Raises:
        ConfigurationError: if not.
    """
    free, vocabulary = free_bytes(model.device), model.config.get_text_config(decoder=True).vocab_size
    needed = mask.numel() * vocabulary * model.dtype.itemsize
    if free is not None and needed > free:
        raise ConfigurationError(
            f"`batch_size={batch_size}` rows of {mask.numel() // len(mask)} positions have {in_megabytes(needed)} of "
            f"scores over {vocabulary:,} tokens, and {model.device} has {in_megabytes(free)} left. Pass a "
            f"`batch_size` of at most {max(1, int(len(mask) * free / needed))}, shorter rows, or a teacher in a "
            "smaller `dtype`."
        )


def in_megabytes(num_bytes: float) -> str:
    """As it is said."""
    return f"{num_bytes / 1e6:,.1f} MB"

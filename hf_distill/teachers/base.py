"""What every teacher is."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from accelerate import Accelerator
from torch import nn

from hf_distill.heads import Head
from hf_distill.types import Batch, Signals


class Teacher(ABC):
    """Somebody to imitate. One method says it all."""

    @property
    @abstractmethod
    def input_names(self) -> frozenset[str]:
        """The entries of a batch that the teacher reads, kept even if the student does not take them."""

    @abstractmethod
    def signals(self, batch: Batch) -> Signals:
        """What the teacher says about a batch: no gradient, no randomness, on the device of the batch."""

    def meet(self, student: nn.Module, head: Head) -> None:  # noqa: B027 - most teachers need not know the student
        """Get to know the student and its head. Called before all else, and again when another takes its place."""

    def collator_for(self, collator: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The Trainer's collator, or one around it that keeps what this teacher reads and `collator` cannot batch."""
        return collator

    def prepare(self, accelerator: Accelerator) -> None:  # noqa: B027 - most teachers need no place
        """Move to where the student is trained. Called once, before the first batch."""

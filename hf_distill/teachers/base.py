"""What every teacher is."""

from abc import ABC, abstractmethod

from accelerate import Accelerator

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

    def prepare(self, accelerator: Accelerator) -> None:  # noqa: B027 - most teachers need no place
        """Move to where the student is trained. Called once, before the first batch."""

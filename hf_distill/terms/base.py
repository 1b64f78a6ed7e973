"""What every term is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import nn
from typing_extensions import Self

from hf_distill.errors import ConfigurationError
from hf_distill.types import Anatomy, Positions, Requirements, Signals, TermLoss, Unit


class Term(ABC):
    """One thing to imitate: a distance between student and teacher, summed over its unit.

    A term never averages. It returns the sum over this micro-batch and how many units it summed; the Trainer divides
    by the units of the whole accumulated batch over all processes. That is what makes gradients independent of how a
    batch is split.
    """

    needs_same_classes: ClassVar[bool] = True
    """Whether a term that reads a teacher compares class by class, so that both must have the same classes."""
    compares_rows: ClassVar[bool] = False
    """Whether a row is compared with the others of its micro-batch, so that it matters which ones these are."""
    reads_every_class: ClassVar[bool] = True
    """Whether a term that reads a teacher asks for each of its class scores, so that `TopKLogits` are not enough."""

    @property
    @abstractmethod
    def unit(self) -> Unit:
        """What the sum runs over."""

    @property
    @abstractmethod
    def requires(self) -> Requirements:
        """What the term reads. Nothing else is computed for it."""

    @abstractmethod
    def __call__(self, student: Signals, teacher: Signals | None, where: Positions, progress: float) -> TermLoss:
        """The sum over `unit` and its count.

        Args:
            student: the student's signals, with gradient.
            teacher: the teacher's signals, without gradient; None if `requires.teacher` is False.
            where: the positions that count.
            progress: the fraction of training that is done, 0 to 1, for schedules.
        """

    def bound(self, name: str, student: Anatomy, teacher: Anatomy) -> Self:
        """The term for these two models. Only a term that reads features differs from model to model.

        Args:
            name: the term's name in the objective.
        """
        return self

    def learned_parts(self) -> Mapping[str, nn.Module]:
        """New modules that are trained beside the student, by the names that `Feature.projection` has for them."""
        return {}

    def log_values(self, progress: float) -> dict[str, float]:
        """Scheduled values to log under `<key>/<term name>`, such as a temperature that moves."""
        return {}


def check_function(name: str, function: object) -> None:
    """Refuses what cannot be called.

    Raises:
        ConfigurationError: naming the argument.
    """
    if not callable(function):
        raise ConfigurationError(f"{name} must be a function, as those of `hf_distill.functional`, got {function!r}.")

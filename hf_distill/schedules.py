"""Numbers that move with training: a temperature or a weight as a function of progress."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from numbers import Real

from hf_distill.errors import ConfigurationError


@dataclass(frozen=True)
class Schedule(ABC):
    """A number for each fraction of training that is done. Its fields are the values that it moves between.

    Called with `progress`, 0 at the start of training and 1 at its end; what lies outside counts as the nearer end.
    Two schedules with the same fields are equal.

    Raises:
        ConfigurationError: if a field is not a finite number, or a call gets a `progress` that is NaN.
    """

    def __post_init__(self) -> None:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        faults = [f"{name}={value!r}" for name, value in values.items() if not is_finite_number(value)]
        if faults:
            raise ConfigurationError(f"{type(self).__name__} needs finite numbers, got {', '.join(faults)}.")
        for name, value in values.items():
            object.__setattr__(self, name, float(value))

    def __call__(self, progress: float) -> float:
        """The value at `progress`, never outside [`minimum`, `maximum`]."""
        if math.isnan(progress):
            raise ConfigurationError("progress is NaN. Pass the fraction of training that is done, 0 to 1.")
        value = self._value(min(max(float(progress), 0.0), 1.0))
        return min(max(value, self.minimum), self.maximum)

    @property
    def minimum(self) -> float:
        """The smallest value that a call returns, so that a user can check that a temperature is always above 0."""
        return float(min(getattr(self, field.name) for field in fields(self)))

    @property
    def maximum(self) -> float:
        """The largest value that a call returns."""
        return float(max(getattr(self, field.name) for field in fields(self)))

    @abstractmethod
    def _value(self, progress: float) -> float:
        """The value at a progress in [0, 1]."""


@dataclass(frozen=True)
class Constant(Schedule):
    """The same value throughout.

    Example:

        >>> Constant(2.0)(0.3)
        2.0
    """

    value: float

    def _value(self, progress: float) -> float:
        return self.value


@dataclass(frozen=True)
class Linear(Schedule):
    """From `start` to `end` in equal steps.

        (1 − progress) · start + progress · end

    Example:

        >>> Linear(4.0, 1.0)(0.5)
        2.5
    """

    start: float
    end: float

    def _value(self, progress: float) -> float:
        return (1.0 - progress) * self.start + progress * self.end


@dataclass(frozen=True)
class Cosine(Schedule):
    """From `start` to `end` along half a cosine: slow at both ends, fastest in the middle.

        (1 − w) · start + w · end,  w = ½ · (1 − cos(π · progress))

    Example:

        >>> [round(Cosine(4.0, 0.0)(progress), 3) for progress in (0.0, 0.25, 0.5, 1.0)]
        [4.0, 3.414, 2.0, 0.0]
    """

    start: float
    end: float

    def _value(self, progress: float) -> float:
        share = 0.5 * (1.0 - math.cos(math.pi * progress))
        return (1.0 - share) * self.start + share * self.end


@dataclass(frozen=True)
class During(Schedule):
    """`value` for a part of training, and 0 before and after it.

        value where start ≤ progress < end, or where both are 1

    Raises:
        ConfigurationError: if it does not start before it ends, or either lies outside of 0 to 1.

    Example:

        >>> [During(2.0, start=0.25, end=0.5)(progress) for progress in (0.0, 0.25, 0.5, 1.0)]
        [0.0, 2.0, 0.0, 0.0]
    """

    value: float
    start: float
    end: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.start < self.end <= 1:
            raise ConfigurationError(
                f"start={self.start} and end={self.end} are fractions of training, from 0 to 1, and one comes before "
                "the other."
            )

    @property
    def minimum(self) -> float:
        return min(0.0, self.value)

    @property
    def maximum(self) -> float:
        return max(0.0, self.value)

    def _value(self, progress: float) -> float:
        return self.value if self.start <= progress < self.end or progress == self.end == 1 else 0.0


def as_schedule(value: float | Schedule) -> Schedule:
    """A schedule as it is, and a number as a `Constant`.

    Raises:
        ConfigurationError: if `value` is neither a schedule nor a finite number.

    Example:

        >>> as_schedule(2.0)
        Constant(value=2.0)
    """
    if isinstance(value, Schedule):
        return value
    if not is_finite_number(value):
        raise ConfigurationError(
            f"Expected a finite number or a schedule (Constant, Linear, Cosine, During), got {value!r} of type "
            f"{type(value).__name__}."
        )
    return Constant(value)


def is_finite_number(value: object) -> bool:
    """Whether it is a real number, of a size that a float has; a truth value is none."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False

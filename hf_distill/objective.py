"""What a student learns: a named, weighted sum of terms."""

import copy
from collections.abc import Iterator, Mapping
from functools import reduce
from math import prod
from operator import or_
from typing import Literal, NamedTuple

from torch import nn

from hf_distill.errors import ConfigurationError
from hf_distill.schedules import Constant, Schedule, as_schedule
from hf_distill.terms.base import Term
from hf_distill.terms.feature_terms import FeatureTerm
from hf_distill.types import Anatomy, Positions, Requirements, Signals, TermLoss, Unit


class WeightedTerm(NamedTuple):
    """A term and the schedules whose product weighs it."""

    term: Term
    schedules: tuple[Schedule, ...]
    scale: float = 1.0
    """What balancing multiplies the weight by."""

    def weight(self, progress: float) -> float:
        return self.scale * prod(schedule(progress) for schedule in self.schedules)

    @property
    def largest_weight(self) -> float:
        """The product of the largest values of its schedules, times the scale."""
        return self.scale * prod(schedule.maximum for schedule in self.schedules)

    @property
    def is_as_given(self) -> bool:
        """Whether the weight is the number that was given, all the time."""
        return self.scale == 1.0 and all(isinstance(schedule, Constant) for schedule in self.schedules)


class Objective:
    """A named, weighted sum of terms: L = Σ weight · (sum of the term / number of its units).

    Args:
        terms: name → `(weight, term)`. The name is the one in the logs (`loss/<name>`). The weight is a number or a
            schedule over training. A term may itself be an objective: its terms are then called `outer/inner` and
            weighed by both weights. Terms with a constant weight of 0 are left out, and nothing is computed for them.
        weights: "given", or "balanced": each weight is multiplied by a number of its own, found when training starts,
            by which a weight of 1 gives each term's gradient the size of the labels' (of the largest, where there are
            no labels). So weights say how much a term pulls, and not in what unit it is. They are logged as
            `weight/<name>`.

    Raises:
        ConfigurationError: if `terms` are no such pairs, nothing is left to learn, a weight is negative, two terms
            share a name, or `weights` is neither, here or in an objective that stands in place of a term.

    Example:

        >>> from hf_distill.terms import HardLabelTerm, SoftTargetTerm
        >>> objective = Objective({"labels": (0.1, HardLabelTerm()), "soft": (0.9, SoftTargetTerm(temperature=4.0))})
        >>> objective.weights(progress=0.0)
        {'labels': 0.1, 'soft': 0.9}
        >>> objective.requires
        Requirements(labels=True, teacher=True)
    """

    recipe: str | None = None
    """The name of the recipe that made it, if one of `recipes` did."""

    def __init__(
        self,
        terms: Mapping[str, "tuple[float | Schedule, Term | Objective]"],
        weights: Literal["given", "balanced"] = "given",
    ) -> None:
        if weights not in ("given", "balanced"):
            raise ConfigurationError(f"`weights` must be 'given' or 'balanced', got {weights!r}.")
        self.is_balanced = weights == "balanced"
        self.terms: dict[str, WeightedTerm] = {}
        if not isinstance(terms, Mapping) or not all(map(_is_weighted_term, terms.items())):
            raise ConfigurationError(
                f"`terms` must map names to (weight, term), as in {{'soft': (1.0, SoftTargetTerm())}}, got {terms!r}."
            )
        for name, (weight, term) in terms.items():
            if isinstance(term, Objective) and term.is_balanced and not self.is_balanced:
                raise ConfigurationError(
                    f"the objective {name!r} has weights='balanced', and the one that it is a part of has not. "
                    "Balance the outermost one."
                )
            schedule = as_schedule(weight)
            if schedule.minimum < 0:
                raise ConfigurationError(f"the weight of term {name!r} must never be below 0, got {weight!r}.")
            for flat_name, weighted in _flattened(name, schedule, term) if schedule != Constant(0.0) else ():
                if flat_name in self.terms:
                    raise ConfigurationError(f"two terms are called {flat_name!r}. Give each a name of its own.")
                self.terms[flat_name] = weighted
        if not self.terms:
            raise ConfigurationError(
                f"an objective needs at least one term whose weight is not 0, got {dict(terms)!r}."
            )

    @property
    def requires(self) -> Requirements:
        """What all terms together read."""
        return reduce(or_, (weighted.term.requires for weighted in self.terms.values()), Requirements())

    @property
    def units(self) -> tuple[Unit, ...]:
        """What the terms are counted in."""
        return tuple(dict.fromkeys(weighted.term.unit for weighted in self.terms.values()))

    def __call__(
        self, student: Signals, teacher: Signals | None, where: Positions, progress: float
    ) -> dict[str, TermLoss]:
        """Each term's sum and count on this micro-batch, unweighted."""
        return {name: weighted.term(student, teacher, where, progress) for name, weighted in self.terms.items()}

    def bound(self, student: Anatomy, teacher: Anatomy) -> "Objective":
        """The objective for these two models, by which the terms that compare layers know them.

        Args:
            student: from `feature_reading.anatomy_of`.
            teacher: likewise.

        Raises:
            ConfigurationError, UnsupportedModelError: if a term does not fit them.
        """
        bound = copy.copy(self)
        bound.terms = {
            name: weighted._replace(term=weighted.term.bound(name, student, teacher))
            for name, weighted in self.terms.items()
        }
        return bound

    def scaled(self, scales: Mapping[str, float]) -> "Objective":
        """The objective with each weight multiplied by the number of that name."""
        scaled = copy.copy(self)
        scaled.terms = {name: weighted._replace(scale=scales[name]) for name, weighted in self.terms.items()}
        return scaled

    def without(self, name: str) -> "Objective":
        """The objective without one of its terms, to see whether it helps."""
        rest = copy.copy(self)
        rest.terms = {other: weighted for other, weighted in self.terms.items() if other != name}
        return rest

    @property
    def compares_layers(self) -> bool:
        """Whether a term is to be bound to its models."""
        return any(isinstance(weighted.term, FeatureTerm) for weighted in self.terms.values())

    def learned_parts(self) -> dict[str, nn.Module]:
        """New modules that are trained beside the student, of all terms."""
        return {name: part for weighted in self.terms.values() for name, part in weighted.term.learned_parts().items()}

    def weights(self, progress: float) -> dict[str, float]:
        """Each term's weight at this fraction of training."""
        return {name: weighted.weight(progress) for name, weighted in self.terms.items()}

    def log_values(self, progress: float) -> dict[str, float]:
        """The weights and temperatures that are not as given, under the names they have in the logs."""
        values = {f"weight/{name}": term.weight(progress) for name, term in self.terms.items() if not term.is_as_given}
        for name, weighted in self.terms.items():
            values |= {f"{key}/{name}": value for key, value in weighted.term.log_values(progress).items()}
        return values

    def __repr__(self) -> str:
        return f"Objective({{{', '.join(f'{name!r}: {term}' for name, term in self.terms.items())}}})"


def _is_weighted_term(entry: tuple[object, object]) -> bool:
    name, weighted = entry
    return (
        isinstance(name, str)
        and isinstance(weighted, tuple | list)
        and len(weighted) == 2
        and isinstance(weighted[1], Term | Objective)
    )


def _flattened(name: str, schedule: Schedule, term: "Term | Objective") -> Iterator[tuple[str, WeightedTerm]]:
    if isinstance(term, Objective):
        for inner_name, inner in term.terms.items():
            yield f"{name}/{inner_name}", WeightedTerm(inner.term, (schedule, *inner.schedules))
    else:
        yield name, WeightedTerm(term, (schedule,))

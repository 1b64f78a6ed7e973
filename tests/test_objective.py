"""A named, weighted sum of terms."""

from dataclasses import dataclass

import pytest
import torch

from hf_distill import Cosine, Linear, Objective
from hf_distill.errors import ConfigurationError
from hf_distill.terms import HardLabelTerm, SoftTargetTerm, Term
from hf_distill.types import Positions, Requirements, Signals, TermLoss, Unit


@dataclass(frozen=True)
class FixedTerm(Term):
    """Always the same sum."""

    value: float

    unit = Unit.POSITION
    requires = Requirements()

    def __call__(self, student, teacher, where, progress):
        return TermLoss(torch.tensor(self.value * (1 + progress)), torch.tensor(4))


SIGNALS = Signals(torch.zeros(1, 2))
WHERE = Positions(torch.ones(1, dtype=torch.bool), {Unit.LABEL: torch.tensor(1), Unit.POSITION: torch.tensor(1)})


def test_terms_are_called_by_name_and_not_weighted():
    objective = Objective({"a": (0.5, FixedTerm(3.0)), "b": (2.0, FixedTerm(7.0))})
    losses = objective(SIGNALS, None, WHERE, progress=0.5)
    assert {name: (loss.total.item(), loss.count.item()) for name, loss in losses.items()} == {
        "a": (4.5, 4),
        "b": (10.5, 4),
    }
    assert objective.weights(progress=0.5) == {"a": 0.5, "b": 2.0}


def test_what_weighs_nothing_is_left_out():
    objective = Objective({"labels": (0, HardLabelTerm()), "soft": (1, SoftTargetTerm())})
    assert list(objective.terms) == ["soft"]
    assert objective.requires == Requirements(teacher=True)
    assert objective.units == (Unit.POSITION,)


def test_what_will_weigh_something_later_stays():
    objective = Objective({"labels": (Linear(0.0, 1.0), HardLabelTerm()), "soft": (1, SoftTargetTerm())})
    assert objective.requires == Requirements(labels=True, teacher=True)
    assert objective.units == (Unit.LABEL, Unit.POSITION)
    assert [objective.weights(progress)["labels"] for progress in (0.0, 0.25, 1.0)] == [0.0, 0.25, 1.0]


def test_an_objective_is_a_term():
    inner = Objective({"labels": (0.5, HardLabelTerm()), "soft": (Linear(1.0, 0.0), SoftTargetTerm(Linear(4.0, 2.0)))})
    outer = Objective({"first": (Linear(0.0, 2.0), inner), "b": (3.0, FixedTerm(1.0))})
    assert list(outer.terms) == ["first/labels", "first/soft", "b"]
    assert outer.weights(progress=0.25) == {"first/labels": 0.5 * 0.5, "first/soft": 0.5 * 0.75, "b": 3.0}
    assert outer.requires == Requirements(labels=True, teacher=True)
    assert outer.log_values(progress=0.25) == {
        "weight/first/labels": 0.25,
        "weight/first/soft": 0.375,
        "temperature/first/soft": 3.5,
    }
    twice = Objective({"again": (2.0, outer)})
    assert twice.weights(progress=0.25)["again/first/soft"] == 0.75


def test_only_what_moves_is_logged():
    fixed = Objective({"labels": (0.3, HardLabelTerm()), "soft": (0.7, SoftTargetTerm(3.0))})
    assert fixed.log_values(progress=0.5) == {}
    moving = Objective({"labels": (Cosine(1.0, 0.0), HardLabelTerm()), "soft": (0.7, SoftTargetTerm(3.0))})
    assert moving.log_values(progress=1.0) == {"weight/labels": 0.0}


def test_says_what_it_is():
    text = repr(Objective({"soft": (Linear(0.0, 1.0), SoftTargetTerm(3.0))}))
    assert "'soft'" in text and "Linear(start=0.0, end=1.0)" in text and "temperature=3.0" in text


@pytest.mark.parametrize("terms", [{}, {"labels": (0.0, HardLabelTerm())}])
def test_nothing_to_learn_is_refused(terms):
    with pytest.raises(ConfigurationError, match=r"at least one term whose weight is not 0, got \{"):
        Objective(terms)


@pytest.mark.parametrize("weight", [-1, Linear(0.5, -0.5)])
def test_a_negative_weight_is_refused(weight):
    with pytest.raises(ConfigurationError, match=r"weight of term 'soft' must never be below 0, got (-1|Linear)"):
        Objective({"soft": (weight, SoftTargetTerm())})


def test_weight_and_term_exchanged_are_refused():
    with pytest.raises(ConfigurationError, match=r"Expected a finite number or a schedule .* got HardLabelTerm"):
        Objective({"labels": (HardLabelTerm(), 1.0)})


def test_two_terms_of_one_name_are_refused():
    inner = Objective({"b": (1.0, FixedTerm(1.0))})
    with pytest.raises(ConfigurationError, match="two terms are called 'a/b'"):
        Objective({"a/b": (1.0, FixedTerm(2.0)), "a": (1.0, inner)})


def test_without_a_term():
    objective = Objective({"labels": (0.3, HardLabelTerm()), "soft": (0.7, SoftTargetTerm(2.0))})
    rest = objective.without("soft")
    assert list(rest.terms) == ["labels"] and rest.weights(0.0) == {"labels": 0.3}
    assert list(objective.terms) == ["labels", "soft"]

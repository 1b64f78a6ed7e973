"""The sorted distance as a term: any two vocabularies, summed over the positions that count."""

import pytest
import torch

from hf_distill import Linear
from hf_distill.errors import ConfigurationError, MissingTeacherError
from hf_distill.terms import HardLabelTerm, SoftTargetTerm, UniversalLogitTerm
from hf_distill.types import Positions, Signals, Unit
from tests.functional.divergence_cases import loop_sorted_probability_distance


STUDENT = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
TEACHER = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1))
MASK = torch.tensor([[True, False, True], [False, True, True]])
WHERE = Positions(MASK, {Unit.POSITION: MASK.sum()})


def expected(temperature):
    return sum(
        loop_sorted_probability_distance(STUDENT[row, column].tolist(), TEACHER[row, column].tolist(), temperature)
        for row, column in MASK.nonzero().tolist()
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_equals_the_equation(temperature):
    loss = UniversalLogitTerm(temperature)(Signals(STUDENT), Signals(TEACHER), WHERE, 0.0)
    assert loss.total.item() == pytest.approx(expected(temperature), rel=1e-5)
    assert loss.count == 4


@pytest.mark.parametrize("progress, temperature", [(0.0, 4.0), (0.5, 2.5), (1.0, 1.0)])
def test_a_temperature_that_moves(progress, temperature):
    term = UniversalLogitTerm(Linear(4.0, 1.0))
    loss = term(Signals(STUDENT), Signals(TEACHER), WHERE, progress)
    assert loss.total.item() == pytest.approx(expected(temperature), rel=1e-5)
    assert term.log_values(progress) == {"temperature": temperature}


def test_nan_where_nothing_counts():
    student, teacher = STUDENT.clone(), TEACHER.clone()
    student[~MASK], teacher[~MASK] = torch.nan, torch.inf
    loss = UniversalLogitTerm()(Signals(student.requires_grad_()), Signals(teacher), WHERE, 0.0)
    loss.total.backward()
    assert loss.total.item() == pytest.approx(expected(1.0), rel=1e-5)
    assert torch.equal(student.grad[~MASK], torch.zeros(2, 5))
    assert (student.grad[MASK].norm(dim=-1) > 0).all()


def test_it_alone_compares_models_with_other_classes():
    assert not UniversalLogitTerm().needs_same_classes
    assert SoftTargetTerm().needs_same_classes
    assert HardLabelTerm().needs_same_classes


def test_the_distance_is_given():
    with pytest.raises(TypeError, match="divergence"):
        UniversalLogitTerm(1.0, divergence=torch.dist)


def test_a_temperature_of_0():
    with pytest.raises(ConfigurationError, match=r"temperature must be above 0 throughout training, got 0"):
        UniversalLogitTerm(0)


def test_without_a_teacher():
    with pytest.raises(MissingTeacherError, match="got teacher=None"):
        UniversalLogitTerm()(Signals(STUDENT), None, WHERE, 0.0)

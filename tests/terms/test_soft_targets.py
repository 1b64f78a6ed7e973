"""Soft targets against the equation, one position at a time."""

import math
from functools import partial

import pytest
import torch

from hf_distill import Linear
from hf_distill.errors import ConfigurationError, MissingTeacherError
from hf_distill.functional import jensen_shannon, reverse_kl
from hf_distill.terms import SoftTargetTerm
from hf_distill.types import Positions, Signals, Unit


STUDENT = torch.tensor([[[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], [[2.0, 2.0, -1.0], [0.3, 0.2, 0.1]]])
TEACHER = torch.tensor([[[0.0, -1.0, 2.5], [1.0, 1.0, 1.0]], [[-2.0, 0.0, 1.0], [4.0, 0.0, 0.1]]])
MASK = torch.tensor([[True, False], [True, True]])
WHERE = Positions(MASK, {Unit.LABEL: torch.tensor(1), Unit.POSITION: MASK.sum()})


def softened(logits, temperature):
    powers = [math.exp(logit / temperature) for logit in logits]
    return [power / sum(powers) for power in powers]


def hinton_sum(temperature):
    total = 0.0
    for row in range(2):
        for column in range(2):
            if not MASK[row, column]:
                continue
            q = softened(STUDENT[row, column].tolist(), temperature)
            p = softened(TEACHER[row, column].tolist(), temperature)
            total += temperature**2 * sum(p[c] * (math.log(p[c]) - math.log(q[c])) for c in range(3))
    return total


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_equals_the_equation(temperature):
    loss = SoftTargetTerm(temperature)(Signals(STUDENT), Signals(TEACHER), WHERE, 0.0)
    assert loss.total.item() == pytest.approx(hinton_sum(temperature), rel=1e-5)
    assert loss.count == 3


@pytest.mark.parametrize("progress, temperature", [(0.0, 4.0), (0.5, 2.5), (1.0, 1.0)])
def test_a_temperature_that_moves(progress, temperature):
    term = SoftTargetTerm(Linear(4.0, 1.0))
    loss = term(Signals(STUDENT), Signals(TEACHER), WHERE, progress)
    assert loss.total.item() == pytest.approx(hinton_sum(temperature), rel=1e-5)
    assert term.log_values(progress) == {"temperature": temperature}
    assert SoftTargetTerm(4.0).log_values(progress) == {}


@pytest.mark.parametrize("divergence", [reverse_kl, partial(jensen_shannon, beta=0.1)])
def test_another_divergence(divergence):
    loss = SoftTargetTerm(2.0, divergence)(Signals(STUDENT), Signals(TEACHER), WHERE, 0.0)
    expected = sum(
        divergence(STUDENT[row, column], TEACHER[row, column], temperature=2.0).item()
        for row, column in MASK.nonzero().tolist()
    )
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)
    assert loss.total.item() != pytest.approx(hinton_sum(2.0), rel=1e-2)


def test_scores_that_are_no_distribution_are_compared_by_squared_error():
    student, teacher = Signals(STUDENT, is_distribution=False), Signals(TEACHER, is_distribution=False)
    loss = SoftTargetTerm(4.0)(student, teacher, WHERE, 0.0)
    expected = sum((STUDENT[r, c, k] - TEACHER[r, c, k]).item() ** 2 / 3 for r, c in MASK.nonzero() for k in range(3))
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_position_may_have_several_rows_of_scores(device):
    """On an accelerator the mask is spread over them; a tensor without numbers shows that it fits."""
    mask = torch.tensor([False, True])
    where = Positions(mask.to(device), {Unit.POSITION: mask.sum()})
    loss = SoftTargetTerm(1.0)(Signals(STUDENT.to(device)), Signals(TEACHER.to(device)), where, 0.0)
    rows = [
        SoftTargetTerm(1.0)(Signals(STUDENT[1]), Signals(TEACHER[1]), Positions(m, {Unit.POSITION: m.sum()}), 0.0)
        for m in (torch.tensor([True, False]), torch.tensor([False, True]))
    ]
    assert loss.count == 1 and loss.total.shape == ()
    if device == "cpu":
        assert loss.total.item() == pytest.approx(sum(row.total.item() for row in rows), rel=1e-6)


@pytest.mark.parametrize("temperature", [0, -1.0, Linear(2.0, 0.0)])
def test_a_temperature_that_is_ever_0_or_less(temperature):
    with pytest.raises(ConfigurationError, match=r"temperature must be above 0 throughout training, got (0|-1|Lin)"):
        SoftTargetTerm(temperature)


def test_without_a_teacher():
    with pytest.raises(MissingTeacherError, match="got teacher=None"):
        SoftTargetTerm()(Signals(STUDENT), None, WHERE, 0.0)

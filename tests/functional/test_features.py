"""Distances of vectors against their formulas in plain loops. What holds for all: test_feature_contract.py."""

import math

import pytest
import torch

from hf_distill.functional import cosine_distance, gaussian_nll, hidden_mse, normalized_squared_distance
from tests.functional.waves import wave


STUDENT, TEACHER = wave(2, 3, 4, step=1.7), wave(2, 3, 4, step=2.3)
LOG_VARIANCES = [0.5, -1.0, 0.0, 2.0]


def loop_mse(s, t):
    return sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / len(s)


def unit(vector):
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def loop_normalized(s, t):
    return sum((a - b) ** 2 for a, b in zip(unit(s), unit(t), strict=True))


def loop_cosine(s, t):
    return 1 - sum(a * b for a, b in zip(unit(s), unit(t), strict=True))


def loop_gaussian(s, t):
    """−log of the normal density, without log √2π."""
    densities = [
        math.exp(-((b - a) ** 2) / (2 * math.exp(v))) / math.sqrt(math.exp(v))
        for a, b, v in zip(s, t, LOG_VARIANCES, strict=True)
    ]
    return -sum(math.log(density) for density in densities) / len(s)


def gaussian(student, teacher):
    return gaussian_nll(student, teacher, torch.tensor(LOG_VARIANCES, dtype=torch.float64))


@pytest.mark.parametrize(
    "function, loop",
    [
        (hidden_mse, loop_mse),
        (normalized_squared_distance, loop_normalized),
        (cosine_distance, loop_cosine),
        (gaussian, loop_gaussian),
    ],
)
def test_the_formula_in_loops(function, loop):
    values = function(STUDENT, TEACHER)
    assert values.shape == (2, 3)
    for row in range(2):
        for column in range(3):
            expected = loop(STUDENT[row, column].tolist(), TEACHER[row, column].tolist())
            assert values[row, column].item() == pytest.approx(expected, rel=1e-12)
            assert abs(expected) > 0.01


@pytest.mark.parametrize("function", [normalized_squared_distance, cosine_distance])
def test_the_length_of_a_vector_changes_nothing(function):
    torch.testing.assert_close(function(1e4 * STUDENT, 1e-4 * TEACHER), function(STUDENT, TEACHER))


@pytest.mark.parametrize("function, farthest", [(normalized_squared_distance, 4.0), (cosine_distance, 2.0)])
def test_opposite_vectors_are_farthest(function, farthest):
    torch.testing.assert_close(function(-2 * TEACHER, TEACHER), torch.full((2, 3), farthest, dtype=torch.float64))


def test_near_agreement_no_digits_are_lost():
    """An angle of 1e-4 has 1 − cos = 5e-9, which float32 cannot tell from 0 as a difference of 1 and a cosine."""
    student, teacher = torch.tensor([1.0, 1e-4]), torch.tensor([1.0, 0.0])
    assert cosine_distance(student, teacher).item() == pytest.approx(5e-9, rel=1e-3)


def test_a_vector_of_zeros():
    zeros = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    distance = cosine_distance(zeros, TEACHER[0, 0])
    distance.backward()
    assert distance.item() == pytest.approx(0.5)
    assert zeros.grad.isfinite().all()
    assert cosine_distance(zeros, zeros).item() == 0


def test_the_best_variance_is_the_mean_squared_error():
    """Where ∂/∂v of ½ (v + e² exp(−v)) is 0, exp(v) = e²."""
    log_variances = (TEACHER - STUDENT).square().mean(dim=(0, 1)).log().requires_grad_()
    gaussian_nll(STUDENT, TEACHER, log_variances).sum().backward()
    torch.testing.assert_close(log_variances.grad, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_variance_for_each_position():
    log_variances = wave(2, 3, 4, step=0.3)
    values = gaussian_nll(STUDENT, TEACHER, log_variances)
    expected = gaussian_nll(STUDENT[1, 2], TEACHER[1, 2], log_variances[1, 2])
    assert values[1, 2].item() == pytest.approx(expected.item(), rel=1e-12)


def test_nan_in_a_variance_that_does_not_count():
    log_variances = wave(2, 3, 4, step=0.3)
    log_variances[0, 1] = torch.nan
    log_variances.requires_grad_()
    mask = torch.tensor([[True, False, True], [True, True, True]])
    values = gaussian_nll(STUDENT, TEACHER, log_variances, mask=mask)
    values.sum().backward()
    assert values[0, 1] == 0 and values.isfinite().all()
    assert torch.equal(log_variances.grad[0, 1], torch.zeros(4, dtype=torch.float64))
    assert log_variances.grad[mask].abs().min() > 0

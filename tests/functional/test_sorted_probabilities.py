"""The distance of sorted probabilities: other numbers of classes, permutations, and gradients through the sort."""

import math

import pytest
import torch

from hf_distill.errors import ConfigurationError
from hf_distill.functional import sorted_probability_distance, total_variation
from tests.functional.divergence_cases import loop_sorted_probability_distance, random_logits, value_and_gradient


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("student_size, teacher_size", [(4, 7), (7, 4), (1, 5), (5, 1)])
def test_the_formula_in_loops(student_size, teacher_size, temperature):
    student, _ = random_logits(2, 3, student_size)
    teacher, _ = random_logits(2, 3, teacher_size, seed=1)
    values = sorted_probability_distance(student, teacher, temperature=temperature)
    assert values.mean() > 0.01
    for row in range(2):
        for column in range(3):
            expected = loop_sorted_probability_distance(
                student[row, column].tolist(), teacher[row, column].tolist(), temperature
            )
            assert values[row, column].item() == pytest.approx(expected, rel=1e-12)


def test_by_hand():
    """p = (0.7, 0.2, 0.1) and q = (0.4, 0.6): |0.7 − 0.6| + |0.2 − 0.4| + |0.1 − 0|."""
    teacher = torch.tensor([0.1, 0.7, 0.2], dtype=torch.float64).log()
    student = torch.tensor([0.4, 0.6], dtype=torch.float64).log()
    assert sorted_probability_distance(student, teacher).item() == pytest.approx(0.4, rel=1e-12)
    assert sorted_probability_distance(teacher, student).item() == pytest.approx(0.4, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_permutation_is_exactly_equal(dtype):
    logits, _ = random_logits(4, 50, dtype=dtype)
    permuted = logits[:, torch.randperm(50, generator=torch.Generator().manual_seed(0))]
    values, gradient = value_and_gradient(sorted_probability_distance, logits, permuted, temperature=2.0)
    assert torch.equal(values, torch.zeros(4))
    assert torch.equal(gradient, torch.zeros_like(logits))
    assert (total_variation(logits, permuted) > 0.1).all()


def test_twice_the_total_variation_in_one_order():
    student, teacher = (logits.sort(dim=-1).values for logits in random_logits(4, 6))
    torch.testing.assert_close(
        sorted_probability_distance(student, teacher, temperature=3.0),
        2 * total_variation(student, teacher, temperature=3.0),
    )


def test_the_bound_is_reached():
    """One class for certain against as many as one likes, each as likely: 2 · T · (1 − 1 / C)."""
    certain, uniform = torch.tensor([0.0, -math.inf]).double(), torch.zeros(1000).double()
    assert sorted_probability_distance(certain, uniform, temperature=2.0).item() == pytest.approx(4 * (1 - 1e-3))


@pytest.mark.parametrize("student_size, teacher_size", [(4, 6), (6, 4)])
@pytest.mark.parametrize("masked", [False, True])
def test_gradcheck(student_size, teacher_size, masked):
    student, teacher = random_logits(3, student_size)[0], random_logits(3, teacher_size)[1]
    mask = torch.tensor([True, False, True]) if masked else None

    def distance(student, teacher):
        return sorted_probability_distance(student, teacher, temperature=2.0, mask=mask)

    assert torch.autograd.gradcheck(distance, (student.requires_grad_(), teacher.requires_grad_()))


def test_a_mask_is_a_slice_and_hides_nan():
    student, teacher = random_logits(3, 4)[0], random_logits(3, 6)[1]
    student[1], teacher[1] = math.nan, math.inf
    mask = torch.tensor([True, False, True])
    values, gradient = value_and_gradient(sorted_probability_distance, student, teacher, mask=mask)
    expected, expected_gradient = value_and_gradient(sorted_probability_distance, student[mask], teacher[mask])
    assert torch.equal(values[mask], expected)
    assert torch.equal(gradient[mask], expected_gradient)
    assert values[1] == 0
    assert torch.equal(gradient[1], torch.zeros(4, dtype=torch.float64))


def test_positions_that_differ():
    with pytest.raises(ConfigurationError, match=r"teacher_logits \(3, 5\)\. Pass a row of logits of each"):
        sorted_probability_distance(torch.zeros(2, 3), torch.zeros(3, 5))

"""Pearson distances. The one over classes is in test_divergences.py too, with what all divergences share."""

import math

import pytest
import torch

from hf_distill.errors import ConfigurationError
from hf_distill.functional import inter_class_pearson_distance, intra_class_pearson_distance
from tests.functional.divergence_cases import loop_distribution, random_logits, value_and_gradient
from tests.functional.waves import wave


def correlation(a, b):
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    covariance = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return covariance / math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("masked", [False, True])
def test_intra_class_in_loops(temperature, masked):
    student, teacher = random_logits(2, 4, 3)
    mask = torch.tensor([[True, False, True, True], [True, True, False, True]])
    values = intra_class_pearson_distance(student, teacher, temperature=temperature, mask=mask if masked else None)
    assert values.shape == (3,)
    rows = [(row, column) for row in range(2) for column in range(4) if mask[row, column] or not masked]
    q, p = ([loop_distribution(logits[row].tolist(), temperature) for row in rows] for logits in (student, teacher))
    for c in range(3):
        expected = 1 - correlation([row[c] for row in q], [row[c] for row in p])
        assert values[c].item() == pytest.approx(expected, rel=1e-9)
        assert expected > 0.01


def test_values_of_another_implementation():
    """inter_class_relation and intra_class_relation of hunto/DIST_KD at 2418f18, of probabilities."""
    student, teacher = wave(3, 4, step=1.7, scale=3), wave(3, 4, step=2.3, scale=3)
    assert inter_class_pearson_distance(student, teacher).mean().item() == pytest.approx(0.9483357382122162, rel=1e-6)
    assert intra_class_pearson_distance(student, teacher).mean().item() == pytest.approx(1.510737572895891, rel=1e-6)


def test_probabilities_need_only_be_linearly_related():
    """p = ½ q + ½ · ⅓: another distribution, in which every class is as much above the mean, relatively."""
    q = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3]], dtype=torch.float64)
    student, teacher = q.log(), (q / 2 + 1 / 6).log()
    for distance in (inter_class_pearson_distance, intra_class_pearson_distance):
        torch.testing.assert_close(distance(student, teacher), torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_zero_at_equality(dtype):
    logits, _ = random_logits(5, 4, dtype=dtype)
    values, gradient = value_and_gradient(intra_class_pearson_distance, logits, logits.clone())
    assert torch.equal(values, torch.zeros_like(values))
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)


def test_mask_equals_slicing_also_if_nan_stands_there():
    mask = torch.tensor([True, False, True, True, False, True])
    student, teacher = random_logits(6, 4)
    student[~mask] = teacher[~mask] = torch.nan
    values, gradient = value_and_gradient(intra_class_pearson_distance, student, teacher, mask=mask)
    expected, expected_gradient = value_and_gradient(intra_class_pearson_distance, student[mask], teacher[mask])
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(gradient[mask], expected_gradient)
    assert torch.equal(gradient[~mask], torch.zeros(2, 4, dtype=torch.float64))


@pytest.mark.parametrize("positions", [0, 1])
def test_too_few_positions_to_correlate(positions):
    student, teacher = random_logits(3, 4)
    mask = torch.arange(3) < positions
    values, gradient = value_and_gradient(intra_class_pearson_distance, student, teacher, mask=mask)
    assert torch.equal(values, torch.zeros(4, dtype=torch.float64))
    assert torch.equal(gradient, torch.zeros_like(student))


@pytest.mark.parametrize("distance", [inter_class_pearson_distance, intra_class_pearson_distance])
def test_a_student_that_knows_nothing_yet(distance):
    """Whose last layer starts at 0, so that its probabilities are all equal and correlate with nothing."""
    _, teacher = random_logits(5, 4)
    values, gradient = value_and_gradient(distance, torch.zeros_like(teacher), teacher)
    torch.testing.assert_close(values, torch.full_like(values, 0.5))
    assert gradient.isfinite().all()


def test_a_class_that_neither_has():
    student, teacher = random_logits(5, 4)
    absent = torch.tensor([False, True, False, False])
    dropped = intra_class_pearson_distance(student[:, ~absent], teacher[:, ~absent])
    values, gradient = value_and_gradient(
        intra_class_pearson_distance, *(logits.masked_fill(absent, -torch.inf) for logits in (student, teacher))
    )
    torch.testing.assert_close(values[~absent], dropped)
    assert values[1] == 0 and gradient.isfinite().all()


@pytest.mark.parametrize("masked", [False, True])
def test_gradcheck(masked):
    student, teacher = (logits.requires_grad_() for logits in random_logits(4, 3))
    mask = torch.tensor([True, False, True, True]) if masked else None
    assert torch.autograd.gradcheck(
        lambda ours, theirs: intra_class_pearson_distance(ours, theirs, temperature=2.0, mask=mask), (student, teacher)
    )


def test_compiles_without_a_break():
    compiled = torch.compile(intra_class_pearson_distance, backend="eager", fullgraph=True)
    student, teacher = random_logits(4, 3)
    mask = torch.tensor([True, False, True, True])
    torch.testing.assert_close(
        compiled(student, teacher, mask=mask), intra_class_pearson_distance(student, teacher, mask=mask)
    )


def test_refusals():
    with pytest.raises(ConfigurationError, match=r"temperature must be a finite number above 0, got 0"):
        intra_class_pearson_distance(*random_logits(2, 3), temperature=0)

"""Divergences of z-scores. Against the formula in loops and what all divergences share: test_divergences.py."""

import pytest
import torch

from hf_distill.functional import forward_kl, reverse_kl, standardized_divergence
from tests.functional.waves import wave


STUDENT, TEACHER = wave(3, 4, step=1.7, scale=3), wave(3, 4, step=2.3, scale=3)


@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl])
def test_the_divergence_of_the_z_scores(divergence):
    def z_scores(logits):
        return (logits - logits.mean(-1, keepdim=True)) / logits.std(-1, correction=0, keepdim=True)

    values = standardized_divergence(STUDENT, TEACHER, temperature=2.0, divergence=divergence)
    expected = divergence(z_scores(STUDENT), z_scores(TEACHER), temperature=2.0)
    torch.testing.assert_close(values, expected, rtol=1e-9, atol=0)


def test_the_value_of_another_implementation():
    """kd_loss(…, 2., True) of sunshangquan/logit-standardization-KD at f6e5aa5, whose `std` divides by C − 1.

    So its z-scores are √(4 / 3) shorter, which a temperature can undo; its T² is that of T = 2.
    """
    values = standardized_divergence(STUDENT, TEACHER, temperature=2.0 * (4 / 3) ** 0.5)
    assert values.mean().item() / (4 / 3) == pytest.approx(0.6994897414748168, rel=1e-6)


def test_scale_and_shift_of_either_model_change_nothing():
    moved = standardized_divergence(0.01 * STUDENT + 5, 100 * TEACHER - 3)
    torch.testing.assert_close(moved, standardized_divergence(STUDENT, TEACHER), rtol=1e-6, atol=0)


def test_logits_that_are_all_equal_are_uniform():
    """As those of a classifier whose last layer starts at 0."""
    student = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    values = standardized_divergence(student, TEACHER)
    values.sum().backward()
    uniform = standardized_divergence(TEACHER, TEACHER) + values.detach()
    assert (uniform > 0).all() and student.grad.isfinite().all()

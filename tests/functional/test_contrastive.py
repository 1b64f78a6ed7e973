"""InfoNCE against its equation in loops. What holds for all: test_feature_contract.py."""

import math

import pytest
import torch

from hf_distill.errors import ConfigurationError
from hf_distill.functional import info_nce
from tests.functional.waves import wave


N = 5
STUDENT, TEACHER = wave(N, 4, step=1.7), wave(N, 4, step=2.3)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_the_equation_in_loops(temperature):
    def similarity(i, j):
        s, t = STUDENT[i].tolist(), TEACHER[j].tolist()
        product = sum(a * b for a, b in zip(s, t, strict=True))
        return math.exp(product / (math.hypot(*s) * math.hypot(*t)) / temperature)

    values = info_nce(STUDENT, TEACHER, temperature=temperature)
    assert values.shape == (N,)
    for i in range(N):
        of_student = similarity(i, i) / sum(similarity(i, j) for j in range(N))
        of_teacher = similarity(i, i) / sum(similarity(j, i) for j in range(N))
        assert values[i].item() == pytest.approx(-math.log(of_student) - math.log(of_teacher), rel=1e-10)


def test_rows_that_cannot_be_told_apart():
    values = info_nce(torch.ones(N, 4), torch.ones(N, 4))
    torch.testing.assert_close(values, torch.full((N,), 2 * math.log(N)))


def test_a_single_row_is_always_found():
    assert info_nce(STUDENT[:1], TEACHER[:1]).item() == 0


def test_it_learns_to_tell_rows_apart():
    student = STUDENT.clone().requires_grad_()
    before = info_nce(student, TEACHER).mean()
    before.backward()
    after = info_nce(student.detach() - 0.01 * student.grad, TEACHER).mean()
    assert after < before


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperatures(temperature):
    with pytest.raises(ConfigurationError, match=f"temperature must be above 0, got {temperature}"):
        info_nce(STUDENT, TEACHER, temperature=temperature)


def test_other_widths():
    with pytest.raises(ConfigurationError, match=r"shape \(5, 4\) and teacher_features \(5, 3\)"):
        info_nce(STUDENT, TEACHER[:, :3])

"""Linear CKA against its definition by kernels, in loops. What holds for all functions: test_feature_contract.py."""

import math

import pytest
import torch

from hf_distill.functional import linear_cka
from tests.functional.waves import wave


N = 7
STUDENT, TEACHER = wave(N, 3, step=1.7), wave(N, 4, step=2.3)


def hsic(k, l):  # noqa: E741 - the paper's names
    """tr(K H L H) with the centring matrix H = 1 − 1 1ᵀ / n."""

    def centred(matrix):
        row = [sum(values) / N for values in matrix]
        mean = sum(row) / N
        return [[matrix[i][j] - row[i] - row[j] + mean for j in range(N)] for i in range(N)]

    k, l = centred(k), centred(l)  # noqa: E741
    return sum(k[i][j] * l[j][i] for i in range(N) for j in range(N))


def kernel(features):
    rows = features.tolist()
    return [[sum(x * y for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]


def test_the_definition_in_loops():
    k, l = kernel(STUDENT), kernel(TEACHER)  # noqa: E741
    expected = hsic(k, l) / math.sqrt(hsic(k, k) * hsic(l, l))
    assert linear_cka(STUDENT, TEACHER).item() == pytest.approx(expected, rel=1e-10)
    assert 0.01 < expected < 0.95


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_one_at_equality(dtype):
    features = TEACHER.to(dtype)
    assert linear_cka(features, features).item() == 1


def test_rotations_shifts_and_a_common_factor_change_nothing():
    rotation = torch.linalg.qr(wave(4, 4, step=1.1))[0]
    moved = 5 * TEACHER @ rotation + wave(4, step=0.3, scale=9)
    torch.testing.assert_close(linear_cka(moved, TEACHER), torch.ones((), dtype=torch.float64))
    torch.testing.assert_close(linear_cka(STUDENT, moved), linear_cka(STUDENT, TEACHER))


def test_positions_of_any_number_of_axes():
    student, teacher = wave(2, 4, 3, step=1.7), wave(2, 4, 5, step=2.3)
    assert linear_cka(student, teacher).item() == linear_cka(student.flatten(0, 1), teacher.flatten(0, 1)).item()


def test_unrelated_layers_are_near_zero():
    student, teacher = torch.randn(4000, 2), torch.randn(4000, 3)
    assert linear_cka(student, teacher).item() < 0.01


def test_features_that_do_not_vary():
    assert linear_cka(torch.ones(5, 3), TEACHER[:5]).item() == 0

"""Relations of rows against the papers' equations in loops. What holds for all: test_feature_contract.py."""

import math
from functools import partial
from itertools import permutations

import pytest
import torch

from hf_distill.errors import ConfigurationError
from hf_distill.functional import correlation_congruence, pkt, rkd_angle, rkd_distance, similarity_preserving
from tests.functional.waves import wave


N = 5
STUDENT, TEACHER = wave(N, 3, step=1.7), wave(N, 4, step=2.3)


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def minus(a, b):
    return [x - y for x, y in zip(a, b, strict=True)]


def length(a):
    return math.sqrt(dot(a, a))


def cosine(a, b):
    return dot(a, b) / (length(a) * length(b))


def huber(x, y):
    return (x - y) ** 2 / 2 if abs(x - y) <= 1 else abs(x - y) - 0.5


def relative_distances(rows):
    distances = {(i, j): length(minus(rows[i], rows[j])) for i, j in permutations(range(N), 2)}
    mean = sum(distances.values()) / len(distances)
    return {pair: distance / mean for pair, distance in distances.items()}


def loop_rkd_distance(student, teacher, i):
    s, t = relative_distances(student), relative_distances(teacher)
    return sum(huber(t[i, j], s[i, j]) for j in range(N) if j != i) / (N - 1)


def loop_rkd_angle(student, teacher, j):
    def angle(rows, i, k):
        return cosine(minus(rows[i], rows[j]), minus(rows[k], rows[j]))

    others = list(permutations([row for row in range(N) if row != j], 2))
    return sum(huber(angle(teacher, i, k), angle(student, i, k)) for i, k in others) / len(others)


def loop_similarity(student, teacher, i):
    def similarities(rows):
        products = [dot(rows[i], rows[j]) for j in range(N)]
        return [product / length(products) for product in products]

    return sum((a - b) ** 2 for a, b in zip(similarities(student), similarities(teacher), strict=True)) / N


def loop_correlation(student, teacher, i, gamma=0.4):
    def kernel(rows, j):
        a, b = ([x / length(row) for x in row] for row in (rows[i], rows[j]))
        return math.exp(-gamma * length(minus(a, b)) ** 2)

    return sum((kernel(teacher, j) - kernel(student, j)) ** 2 for j in range(N)) / N


def loop_pkt(student, teacher, i):
    def probabilities(rows):
        kernels = [(1 + cosine(rows[i], rows[j])) / 2 for j in range(N) if j != i]
        return [kernel / sum(kernels) for kernel in kernels]

    q, p = probabilities(student), probabilities(teacher)
    return sum(y * math.log(y / x) for x, y in zip(q, p, strict=True))


CASES = {
    "rkd_distance": (rkd_distance, loop_rkd_distance),
    "rkd_angle": (rkd_angle, loop_rkd_angle),
    "similarity_preserving": (similarity_preserving, loop_similarity),
    "correlation_congruence": (correlation_congruence, loop_correlation),
    "correlation_congruence_2": (
        partial(correlation_congruence, gamma=2.0),
        partial(loop_correlation, gamma=2.0),
    ),
    "pkt": (pkt, loop_pkt),
}


@pytest.mark.parametrize("name", CASES)
def test_the_equations_in_loops(name):
    function, loop = CASES[name]
    values = function(STUDENT, TEACHER)
    assert values.shape == (N,)
    for row in range(N):
        expected = loop(STUDENT.tolist(), TEACHER.tolist(), row)
        assert values[row].item() == pytest.approx(expected, rel=1e-10)
        assert expected > 1e-2


def test_values_of_another_implementation():
    """RKDLoss and Similarity of HobbitLong/RepDistiller at b84f547, with means over all N² pairs and N³ triplets."""
    pairs, triplets = N * (N - 1), N * (N - 1) * (N - 2)
    distance, angle = rkd_distance(STUDENT, TEACHER).mean().item(), rkd_angle(STUDENT, TEACHER).mean().item()
    assert distance * pairs / N**2 == pytest.approx(0.17408024556357737, rel=1e-10)
    assert angle * triplets / N**3 == pytest.approx(0.1476071661886661, rel=1e-10)
    assert similarity_preserving(STUDENT, TEACHER).mean().item() == pytest.approx(0.36832539882469234, rel=1e-10)


@pytest.mark.parametrize("function", [rkd_distance, rkd_angle, similarity_preserving, correlation_congruence, pkt])
@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_rotations_and_a_common_factor_change_nothing(function, factor):
    rotation = torch.linalg.qr(wave(4, 4, step=1.1))[0]
    torch.testing.assert_close(function(STUDENT, factor * TEACHER @ rotation), function(STUDENT, TEACHER))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rows", [0, 1, 2, 3])
def test_few_rows_and_equal_rows(name, rows):
    """Distances of 0, angles at a point, and means over nothing stay finite, and so do their gradients."""
    function, _ = CASES[name]
    student = torch.ones(rows, 3, dtype=torch.float64, requires_grad=True)
    values = function(student, TEACHER[:rows])
    values.sum().backward()
    assert values.isfinite().all() and student.grad.isfinite().all()
    if rows == 1:
        assert torch.equal(values, torch.zeros(1, dtype=torch.float64))


@pytest.mark.parametrize("gamma", [0.0, -0.4])
def test_a_kernel_that_does_not_fall(gamma):
    with pytest.raises(ConfigurationError, match=f"gamma must be above 0, got {gamma}"):
        correlation_congruence(STUDENT, TEACHER, gamma=gamma)


def test_opposite_rows_have_a_finite_divergence():
    rows = torch.tensor([[1.0], [-1.0], [1.0]], requires_grad=True)
    values = pkt(rows, torch.ones(3, 1))
    values.sum().backward()
    assert values.isfinite().all() and values[0] > 1 and rows.grad.isfinite().all()


@pytest.mark.parametrize("size", [1.0, 1e4, 1e15])
def test_a_single_row_that_counts_has_no_gradient(size):
    student, teacher = size * torch.tensor([[[3.0, 4.0], [0.0, 1.0]], [[5.0, 12.0], [1.0, 0.0]]])
    student.requires_grad_()
    values = rkd_distance(student, teacher, mask=torch.tensor([True, False]))
    (gradient,) = torch.autograd.grad(values.sum(), student)
    assert torch.equal(values, torch.zeros(2)) and torch.equal(gradient, torch.zeros(2, 2))

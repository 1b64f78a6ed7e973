"""Classes that are drawn, against the chances and weights of the definition."""

import pytest
import torch

from hf_distill.errors import ConfigurationError
from hf_distill.functional import (
    LinearLogits,
    chunked_distillation_loss,
    drawn_logits,
    forward_kl,
    on_top_k,
    reverse_kl,
)


def logits(positions=4, classes=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(positions, classes, generator=generator, dtype=torch.float64)


def spread(drawn):
    """Weights of all classes, 0 where a class was not drawn."""
    weights = torch.zeros(drawn.shape, dtype=drawn.values.dtype)
    return weights.scatter_add(-1, drawn.indices, (drawn.values / drawn.drawn_at).exp())


def threshold(p, k):
    """The w for which Σ min(1, p / w) = k, by halving."""
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(min(1.0, each / middle) for each in p) > k else (low, middle)
    return high


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("k", [1, 5, 12, 29])
def test_chances_and_weights_are_those_of_the_definition(k, temperature):
    teacher = logits()
    points = torch.arange(1000, dtype=torch.float64) / 1000 + 0.0005  # all of them, evenly, in place of many draws
    for row in teacher:
        drawn = drawn_logits(row.expand(1000, -1), k, points, temperature=temperature)
        assert all(len(set(indices)) == k for indices in drawn.indices.tolist())
        p = (row / temperature).softmax(-1)
        w = threshold(p.tolist(), k)
        weights = spread(drawn)
        expected = p.clamp(min=w).expand_as(weights)
        torch.testing.assert_close(weights, expected.where(weights > 0, 0.0))
        chances = (weights > 0).double().mean(0)
        torch.testing.assert_close(chances, (p / w).clamp(max=1.0), rtol=0, atol=2.1e-3)
        torch.testing.assert_close(weights.sum(-1), torch.ones(1000, dtype=torch.float64))
        assert (drawn.values[:, :-1] >= drawn.values[:, 1:] - 1e-12).all()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_gradient_is_that_of_all_classes_on_average(temperature):
    teacher, points = logits(1), torch.arange(1000, dtype=torch.float64) / 1000 + 0.0005
    student = logits(1, seed=1).requires_grad_()
    (dense,) = torch.autograd.grad(forward_kl(student, teacher, temperature=temperature).sum(), student)
    several = student.expand(1000, -1)
    drawn = drawn_logits(teacher.expand(1000, -1), 6, points, temperature=temperature)
    (found,) = torch.autograd.grad(on_top_k(forward_kl)(several, drawn, temperature=temperature).mean(), student)
    torch.testing.assert_close(found, dense, rtol=0, atol=1e-3)
    assert (found - dense).abs().max() < dense.abs().max() / 50


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_all_classes_are_the_dense_divergence(temperature):
    student, teacher = logits(seed=1), logits()
    drawn = drawn_logits(teacher, 99, torch.full((4,), 0.5), temperature=temperature)
    found = on_top_k(forward_kl)(student, drawn, temperature=temperature)
    torch.testing.assert_close(found, forward_kl(student, teacher, temperature=temperature))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_chunks_give_the_same_loss_and_gradient(temperature):
    hidden, weight, teacher = logits(7, 5), logits(30, 5, seed=1), logits(7, seed=2)
    drawn = drawn_logits(teacher, 6, torch.linspace(0, 0.9, 7), temperature=temperature)
    results = []
    for is_chunked in (True, False):
        states = hidden.clone().requires_grad_()
        if is_chunked:
            loss = chunked_distillation_loss(
                LinearLogits(states, weight), drawn, temperature=temperature, chunk_size=3
            ).total
        else:
            loss = on_top_k(forward_kl)(states @ weight.t(), drawn, temperature=temperature).sum()
        results.append((loss.detach(), *torch.autograd.grad(loss, states)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_classes_that_there_are_not_are_never_drawn():
    teacher = logits(200).index_fill(-1, torch.arange(20, 30), -torch.inf)
    drawn = drawn_logits(teacher, 8, torch.arange(200) / 200)
    assert drawn.indices.max() < 20
    assert drawn.values.isfinite().all()


def test_other_temperatures_and_divergences_are_refused():
    drawn = drawn_logits(logits(), 3, torch.zeros(4))
    with pytest.raises(
        ConfigurationError, match=r"temperature is 2\.0, and a teacher's 3 classes that were drawn are"
    ):
        on_top_k(forward_kl)(logits(), drawn, temperature=2.0)
    with pytest.raises(ConfigurationError, match="the divergence is 'reverse_kl', and a teacher's classes that were"):
        on_top_k(reverse_kl)(logits(), drawn)


def test_no_class_is_no_draw():
    with pytest.raises(ConfigurationError, match="k must be at least 1, got 0"):
        drawn_logits(logits(), 0, torch.zeros(4))


def test_one_point_for_each_position():
    with pytest.raises(ConfigurationError, match=r"logits have shape \(4, 30\) and points \(3,\)\. Pass `\(N, C\)`"):
        drawn_logits(logits(), 3, torch.zeros(3))

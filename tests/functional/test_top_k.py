"""Divergences from the k likeliest classes, from their definition in plain loops."""

import math
from itertools import pairwise

import pytest
import torch

from hf_distill.errors import ConfigurationError
from hf_distill.functional import forward_kl, jensen_shannon, on_top_k, reverse_kl, top_k_logits, total_variation
from hf_distill.functional.top_k import top_k_of_known


def logits(positions=5, classes=12, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(positions, classes, generator=generator, dtype=dtype)


def coarse(row, kept, temperature):
    """Probabilities of the classes kept, and of all others together."""
    weights = [math.exp(z / temperature) for z in row.tolist()]
    total = sum(weights)
    own = [weights[c] / total for c in kept]
    return [*own, sum(w for c, w in enumerate(weights) if c not in kept) / total]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("k", [1, 4, 11])
def test_forward_kl_is_that_over_k_classes_and_all_others(k, temperature):
    student, teacher = logits(seed=1), logits(seed=2)
    expected = []
    for q_row, p_row in zip(student, teacher, strict=True):
        kept = sorted(range(12), key=lambda c: -p_row[c].item())[:k]
        q, p = coarse(q_row, kept, temperature), coarse(p_row, kept, temperature)
        expected.append(temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    found = on_top_k(forward_kl)(student, top_k_logits(teacher, k), temperature=temperature)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("temperature", [1.5, 3.0, 8.0])
def test_between_the_temperatures_that_are_kept_the_others_are_nearly_right(temperature):
    student, teacher = logits(20, 500, seed=1), logits(20, 500, seed=2)
    kept = top_k_logits(teacher, 16)
    expected = []
    for q_row, p_row, indices in zip(student, teacher, kept.indices.tolist(), strict=True):
        q, p = coarse(q_row, indices, temperature), coarse(p_row, indices, temperature)
        expected.append(temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    found = on_top_k(forward_kl)(student, kept, temperature=temperature)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=5e-3, atol=0)


@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl, jensen_shannon, total_variation])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_all_classes_are_the_dense_divergence(divergence, temperature):
    student, teacher = logits(seed=1).requires_grad_(), logits(seed=2)
    dense = divergence(student, teacher, temperature=temperature)
    (dense_gradient,) = torch.autograd.grad(dense.sum(), student)
    found = on_top_k(divergence)(student, top_k_logits(teacher, 99), temperature=temperature)
    (gradient,) = torch.autograd.grad(found.sum(), student)
    torch.testing.assert_close(found, dense)
    torch.testing.assert_close(gradient, dense_gradient)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_equal_models_have_neither_distance_nor_gradient(temperature):
    teacher = logits()
    student = teacher.clone().requires_grad_()
    found = on_top_k(forward_kl)(student, top_k_logits(teacher, 3), temperature=temperature)
    (gradient,) = torch.autograd.grad(found.sum(), student)
    torch.testing.assert_close(found, torch.zeros_like(found))
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


def test_the_gradient_is_that_of_the_value():
    teacher = top_k_logits(logits(3, 6, seed=2), 2)
    student = logits(3, 6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: on_top_k(forward_kl)(z, teacher, temperature=2.0), student)


def test_it_is_no_larger_than_the_dense_divergence_and_grows_with_k():
    student, teacher = logits(seed=1), logits(seed=2)
    values = [on_top_k(forward_kl)(student, top_k_logits(teacher, k)) for k in (1, 2, 4, 8, 12)]
    assert all((small <= large + 1e-12).all() for small, large in pairwise(values))


def test_positions_that_do_not_count_give_zeros():
    teacher, mask = top_k_logits(logits(2), 3), torch.tensor([True, False])
    student = logits(2, seed=1)
    student[1] = torch.nan
    student.requires_grad_()
    found = on_top_k(forward_kl)(student, teacher, mask=mask)
    (gradient,) = torch.autograd.grad(found.sum(), student)
    assert found[0] > 0 and found[1] == 0
    assert gradient[0].abs().sum() > 0 and not gradient[1].any()


def test_classes_that_neither_model_has():
    student, teacher = logits(2, 6, seed=1), logits(2, 6, seed=2)
    student[:, 4:] = teacher[:, 4:] = -torch.inf
    student.requires_grad_()
    found = on_top_k(forward_kl)(student, top_k_logits(teacher, 4))
    (gradient,) = torch.autograd.grad(found.sum(), student)
    torch.testing.assert_close(found, forward_kl(student[:, :4], teacher[:, :4]))
    assert gradient.isfinite().all() and not gradient[:, 4:].any()


def test_dense_tensors_pass_through():
    student, teacher = logits(seed=1), logits(seed=2)
    assert torch.equal(on_top_k(forward_kl)(student, teacher), forward_kl(student, teacher))


@pytest.mark.parametrize("k", [0, -1])
def test_no_class_is_no_choice(k):
    with pytest.raises(ConfigurationError, match=f"k must be at least 1, got {k}"):
        top_k_logits(logits(), k)


def test_what_is_refused():
    teacher = top_k_logits(logits(), 3)
    with pytest.raises(ConfigurationError, match=r"\(5, 11\) and teacher_logits, of which 3 classes .* \(5, 12\)"):
        on_top_k(forward_kl)(logits(classes=11), teacher)
    with pytest.raises(ConfigurationError, match=r"temperature is 0\.5, .* 3 likeliest classes"):
        on_top_k(forward_kl)(logits(), teacher, temperature=0.5)


def test_it_compiles_without_a_graph_break():
    teacher = top_k_logits(logits(dtype=torch.float32), 3)
    student = logits(seed=1, dtype=torch.float32)
    compiled = torch.compile(on_top_k(forward_kl), fullgraph=True, backend="eager")
    torch.testing.assert_close(
        compiled(student, teacher, temperature=2.0), on_top_k(forward_kl)(student, teacher, temperature=2.0)
    )


def power_law(exponent, classes, k):
    """Probabilities that follow a power law from before the k-th rank on, and what the others weigh, by plain sums."""
    weights = [max(rank, k / 2) ** -exponent for rank in range(1, classes + 1)]
    p = [weight / sum(weights) for weight in weights]
    return p, {beta: math.log(sum(each**beta for each in p[k:])) for beta in (1.0, 0.5, 0.25)}


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.3, 2.5])
@pytest.mark.parametrize("k", [4, 32])
def test_others_that_follow_a_power_law_are_found_from_what_the_k_leave(exponent, k):
    p, others = power_law(exponent, 5000, k)
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(0))[: k + 1]
    known = torch.tensor(p[: k + 1], dtype=torch.float64).log()
    kept = top_k_of_known(known.flip(0), order.flip(0), k, 5000)
    torch.testing.assert_close(kept.values, known[:k].float())
    if exponent:
        assert torch.equal(kept.indices.sort().values, order[:k].sort().values)
    assert (kept.num_others, kept.num_classes) == (5000 - k, 5000)
    expected = torch.tensor([others[beta] for beta in (1.0, 0.5, 0.25)])
    torch.testing.assert_close(kept.tail, expected, rtol=0, atol=0.03)
    torch.testing.assert_close(kept.tail[0], expected[0], rtol=0, atol=1e-5)


def test_what_others_weigh_is_never_impossible():
    """No other class is likelier than the last of the k, and there are only so many, also where 1 − Σ is noise."""
    half = math.log(0.5)
    rows = torch.tensor([[0.0, -40.0], [-1e-9, -18.0], [half, half], [0.0, -math.inf], [-0.7, -0.71]])
    kept = top_k_of_known(rows, torch.tensor([[1, 2]] * 5), 2, 1000)
    for row, (first, second, third) in zip(rows.double(), kept.tail.double().tolist(), strict=True):
        last = row[1].item()
        for beta, found in ((1.0, first), (0.5, second), (0.25, third)):
            assert found <= beta * last + math.log(998) + 1e-5
            assert not math.isnan(found)
    assert kept.tail[3].isneginf().all()


def test_all_classes_known_leave_no_others():
    log_p = logits(1, 6).log_softmax(-1)
    kept = top_k_of_known(log_p, torch.arange(6)[None], 6, 6)
    torch.testing.assert_close(kept.float(), log_p.float())
    assert kept.num_others == 0
    student = logits(1, 6, seed=3)
    for temperature in (1.0, 2.0):
        found = on_top_k(forward_kl)(student, kept, temperature=temperature)
        torch.testing.assert_close(found, forward_kl(student, log_p, temperature=temperature), rtol=1e-5, atol=1e-6)

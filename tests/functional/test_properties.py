"""Whatever shapes, dtypes, masks and extreme values come, every public function keeps its promises."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hf_distill import functional
from hf_distill.functional import (
    LinearLogits,
    chunked_distillation_loss,
    drawn_logits,
    forward_kl,
    generalized_iou,
    jensen_shannon,
    logit_mse,
    on_top_k,
    reverse_kl,
    skewed_kl,
    skewed_reverse_kl,
    top_k_logits,
    total_variation,
)
from tests.functional.property_cases import CASES, NO_DISTANCES


DIVERGENCES = (forward_kl, reverse_kl, jensen_shannon, skewed_kl, skewed_reverse_kl, total_variation, logit_mse)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LARGEST = 60_000.0
"""Float16 ends at 65,504."""
ROOM = 1e-5
"""What rounding may take below 0, as a fraction of the square of temperature and largest logit."""

shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 6))
temperatures = st.floats(0.05, 50.0)


@st.composite
def cases(draw):
    """Logits from harmless to the largest of float16, a mask, and what stands where nothing counts."""
    shape, dtype = draw(shapes), draw(st.sampled_from(DTYPES))
    size = draw(st.sampled_from([1.0, 100.0, LARGEST]))
    numbers = arrays("float32", shape, elements=st.floats(-size, size, width=32))
    student, teacher = (torch.from_numpy(draw(numbers)).to(dtype) for _ in range(2))
    mask = torch.from_numpy(draw(arrays("bool", shape[:-1])))
    garbage = draw(st.sampled_from([float("nan"), float("inf"), float("-inf"), 0.0]))
    return student, teacher, mask, garbage


@settings(max_examples=200, deadline=None)
@given(cases(), temperatures, st.sampled_from(DIVERGENCES))
def test_values_and_gradients_are_finite_and_masks_are_slices(case, temperature, divergence):
    student, teacher, mask, garbage = case
    clean = divergence(student, teacher, temperature=temperature)
    hidden = ~mask.unsqueeze(-1)
    student = student.masked_fill(hidden, garbage).requires_grad_()
    values = divergence(student, teacher.masked_fill(hidden, garbage), temperature=temperature, mask=mask)
    assert values.shape == mask.shape
    assert values.dtype == (torch.float64 if student.dtype == torch.float64 else torch.float32)
    assert values.isfinite().all()
    assert (values[~mask] == 0).all()
    torch.testing.assert_close(values[mask], clean[mask])
    scale = max(1.0, temperature, student.detach()[mask].abs().max().item() if mask.any() else 0.0)
    assert (values >= -ROOM * scale**2).all()
    (gradient,) = torch.autograd.grad(values.sum(), student)
    assert gradient.isfinite().all() or student.dtype == torch.float16  # which ends at 65,504
    assert (gradient[~mask] == 0).all()


@settings(max_examples=100, deadline=None)
@given(cases(), temperatures, st.sampled_from(DIVERGENCES))
def test_equal_logits_are_no_distance_apart(case, temperature, divergence):
    student, _, _, _ = case
    values = divergence(student, student.clone(), temperature=temperature)
    assert (values.abs() <= ROOM * max(1.0, temperature) ** 2).all()


@settings(max_examples=100, deadline=None)
@given(cases(), temperatures, st.sampled_from(DIVERGENCES), st.randoms(use_true_random=False))
def test_the_order_of_classes_does_not_matter(case, temperature, divergence, random):
    student, teacher, _, _ = case
    order = random.sample(range(student.shape[-1]), student.shape[-1])
    values = divergence(student, teacher, temperature=temperature)
    permuted = divergence(student[..., order], teacher[..., order], temperature=temperature)
    torch.testing.assert_close(values, permuted, rtol=1e-4, atol=ROOM * max(1.0, temperature) ** 2)


def features(name, sizes, dtype, size, seed):
    """Student and teacher of a case, and its mask. One in four numbers is 0, so that some vectors are, too."""
    _, form = CASES[name]
    generator = torch.Generator().manual_seed(seed)
    sizes = {**sizes, "C": max(sizes["C"], form.num_classes)}

    def drawn(letters):
        shape = [sizes[letter] for letter in letters]
        numbers = torch.randn(shape, generator=generator, dtype=torch.float64)
        return (numbers * (torch.rand(shape, generator=generator) < 0.75)).mul(size).clamp(-LARGEST, LARGEST).to(dtype)

    mask = torch.rand([sizes[letter] for letter in form.mask], generator=generator) < sizes["share"]
    return drawn(form.inputs), drawn(form.inputs), mask


sizes_of_all = st.fixed_dictionaries(
    {"B": st.integers(1, 4), "L": st.integers(1, 4), "H": st.integers(1, 2), "C": st.integers(1, 5)}
    | {"share": st.sampled_from([0.0, 0.4, 0.8, 1.0])}
)
seeds = st.integers(0, 2**32)
magnitudes = st.sampled_from([1e-30, 1e-3, 1.0, 100.0, 30_000.0])
garbages = st.sampled_from([float("nan"), float("inf"), float("-inf"), 65_504.0])
every_function = pytest.mark.parametrize("name", CASES)
battery = settings(max_examples=40, deadline=None)


@every_function
@battery
@given(sizes=sizes_of_all, dtype=st.sampled_from(DTYPES), size=magnitudes, garbage=garbages, seed=seeds)
def test_what_does_not_count_may_be_anything(name, sizes, dtype, size, garbage, seed):
    """Values and gradients are those of the same inputs with zeros there, and exactly 0 there themselves."""
    function, form = CASES[name]
    student, teacher, mask = features(name, sizes, dtype, size, seed)
    hidden = form.hidden(mask)
    found = []
    for fill in (0.0, garbage):
        ours = student.masked_fill(hidden, fill).requires_grad_()
        values = function(ours, teacher.masked_fill(hidden, fill), mask=mask)
        found.append((values.detach(), *torch.autograd.grad(values.sum(), ours)))
    (clean, clean_gradient), (values, gradient) = found
    assert values.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert gradient.dtype == dtype and gradient.shape == student.shape
    known = {**sizes, "C": max(sizes["C"], form.num_classes)} | {"K": max(sizes["C"], form.num_classes) - 1}
    assert values.shape == tuple(known[letter] for letter in form.values)
    assert values.isfinite().all()
    assert torch.equal(values, clean)
    assert (values.masked_select(form.zeros(mask)) == 0).all()
    assert gradient.isfinite().all() or dtype == torch.float16  # which ends at 65,504
    torch.testing.assert_close(gradient, clean_gradient, rtol=0, atol=0, equal_nan=True)
    assert (gradient.masked_select(hidden) == 0).all()


@every_function
@battery
@given(sizes=sizes_of_all, dtype=st.sampled_from(DTYPES), size=magnitudes, seed=seeds)
def test_nothing_that_counts_is_nothing(name, sizes, dtype, size, seed):
    function, _ = CASES[name]
    student, teacher, mask = features(name, sizes, dtype, size, seed)
    student.requires_grad_()
    values = function(student, teacher, mask=torch.zeros_like(mask))
    assert (values == 0).all()
    (gradient,) = torch.autograd.grad(values.sum(), student)
    assert (gradient == 0).all()


@pytest.mark.parametrize("name", [name for name in CASES if name not in NO_DISTANCES])
@battery
@given(sizes=sizes_of_all, dtype=st.sampled_from(DTYPES), size=magnitudes, seed=seeds)
def test_a_distance_is_zero_at_equality_and_nowhere_negative(name, sizes, dtype, size, seed):
    function, _ = CASES[name]
    student, teacher, mask = features(name, sizes, dtype, size, seed)
    equal = function(student, student.clone(), mask=mask)
    torch.testing.assert_close(equal, torch.zeros_like(equal), rtol=0, atol=1e-5)
    assert (function(student, teacher, mask=mask) >= -ROOM * max(1.0, size) ** 2).all()


numbers = st.lists(st.tuples(*[st.floats(0, 100, width=16)] * 8), min_size=1, max_size=4)


@settings(max_examples=100, deadline=None)
@given(numbers, st.sampled_from(DTYPES))
def test_overlap_of_boxes(pairs, dtype):
    both = torch.tensor(pairs, dtype=torch.float64).to(dtype)
    student, teacher = both[:, :4].requires_grad_(), both[:, 4:].detach()
    values = generalized_iou(student, teacher)
    assert values.shape == (len(pairs),)
    assert values.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert ((values >= -1 - ROOM) & (values <= 1 + ROOM)).all()
    assert torch.equal(values, generalized_iou(teacher, student))
    (gradient,) = torch.autograd.grad(values.sum(), student)
    assert gradient.isfinite().all() or dtype == torch.float16
    own = generalized_iou(teacher, teacher)
    has_area = (teacher[:, 2:] > 0.1).all(-1)
    torch.testing.assert_close(own[has_area], torch.ones_like(own[has_area]), rtol=0, atol=1e-2)


@settings(max_examples=100, deadline=None)
@given(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5)), magnitudes, temperatures, seeds)
def test_chunks_are_the_sum_of_the_whole(sizes, size, temperature, seed):
    num_positions, width, num_classes = sizes
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = (torch.randn(n, width, generator=generator).double() for n in (num_positions, num_classes))
    teacher = size * torch.randn(num_positions, num_classes, generator=generator).double()
    labels = torch.randint(-1, num_classes, (num_positions,), generator=generator)
    labels = labels.where(labels >= 0, -100)
    student = LinearLogits(size * hidden, weight)
    found = chunked_distillation_loss(student, teacher, labels, temperature=temperature, chunk_size=1 + seed % 3)
    logits = (size * hidden) @ weight.T
    torch.testing.assert_close(found.soft, forward_kl(logits, teacher, temperature=temperature).sum())
    nll = [-logits[n].log_softmax(-1)[label] for n, label in enumerate(labels.tolist()) if label >= 0]
    torch.testing.assert_close(found.hard, sum(nll, torch.zeros((), dtype=torch.float64)))
    torch.testing.assert_close(found.total, found.soft + found.hard)


@settings(max_examples=100, deadline=None)
@given(cases(), st.floats(1.0, 50.0), st.integers(1, 8))
def test_the_likeliest_classes_are_no_farther_apart_than_all(case, temperature, k):
    student, teacher, mask, garbage = case
    kept = top_k_logits(teacher, k)
    num_kept = min(k, teacher.shape[-1])
    assert kept.values.shape == (*teacher.shape[:-1], num_kept) and kept.num_others == teacher.shape[-1] - num_kept
    assert (kept.values[..., :-1] >= kept.values[..., 1:]).all()
    likeliest = teacher.gather(-1, kept.argmax()[..., None])[..., 0]
    torch.testing.assert_close(likeliest.float(), teacher.amax(-1).float(), rtol=1e-4, atol=1e-4)
    hidden = student.masked_fill(~mask[..., None], garbage)
    values = on_top_k(forward_kl)(hidden, kept, temperature=temperature, mask=mask)
    assert values.isfinite().all() and (values[~mask] == 0).all()
    if temperature == 1 or kept.num_others == 0:
        scale = max(1.0, temperature, student.abs().max().item())
        assert (values <= forward_kl(student, teacher, temperature=temperature, mask=mask) + ROOM * scale**2).all()


@settings(max_examples=100, deadline=None)
@given(cases(), st.floats(0.0, 0.999), st.integers(1, 8))
def test_classes_that_are_drawn_weigh_as_much_as_all(case, point, k):
    _, teacher, mask, _ = case
    rows = teacher[mask]
    drawn = drawn_logits(rows, k, torch.full((len(rows),), point))
    torch.testing.assert_close(drawn.values.float().exp().sum(-1), torch.ones(len(rows)), rtol=1e-3, atol=1e-3)
    for classes, values in zip(drawn.indices, drawn.values, strict=True):
        assert len(set(classes[values > -torch.inf].tolist())) == (values > -torch.inf).sum()


APART = {
    "ChunkedLoss": test_chunks_are_the_sum_of_the_whole,
    "LinearLogits": test_chunks_are_the_sum_of_the_whole,
    "chunked_distillation_loss": test_chunks_are_the_sum_of_the_whole,
    "drawn_logits": test_classes_that_are_drawn_weigh_as_much_as_all,
    "generalized_iou": test_overlap_of_boxes,
    "on_top_k": test_the_likeliest_classes_are_no_farther_apart_than_all,
    "top_k_logits": test_the_likeliest_classes_are_no_farther_apart_than_all,
}


def test_every_public_function_has_a_row():
    assert CASES.keys() | APART.keys() == set(functional.__all__)
    assert not CASES.keys() & APART.keys()

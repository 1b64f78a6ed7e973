"""Whatever shapes, dtypes, masks and extreme values come, the divergences keep their promises."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hf_distill.functional import (
    forward_kl,
    jensen_shannon,
    logit_mse,
    reverse_kl,
    skewed_kl,
    skewed_reverse_kl,
    total_variation,
)


DIVERGENCES = (forward_kl, reverse_kl, jensen_shannon, skewed_kl, skewed_reverse_kl, total_variation, logit_mse)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
ROOM = 1e-5
"""What rounding may take below 0, as a fraction of the square of temperature and largest logit."""

shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 6))
temperatures = st.floats(0.05, 50.0)


@st.composite
def cases(draw):
    """Logits from harmless to the largest of float16, a mask, and what stands where nothing counts."""
    shape, dtype = draw(shapes), draw(st.sampled_from(DTYPES))
    size = draw(st.sampled_from([1.0, 100.0, 60_000.0]))
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

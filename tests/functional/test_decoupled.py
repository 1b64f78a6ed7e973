"""Decoupled KL against the paper's equations in loops."""

import math
from functools import partial

import pytest
import torch

from hf_distill.errors import ConfigurationError
from hf_distill.functional import forward_kl, non_target_class_kl, target_class_kl
from tests.functional.divergence_cases import loop_distribution, loop_kl, random_logits, value_and_gradient
from tests.functional.waves import wave


TARGETS = torch.tensor([[3, -100, 0], [1, 2, 3]])
every_part = pytest.mark.parametrize("part", [target_class_kl, non_target_class_kl])


def loop_target(q, p, target):
    return loop_kl([p[target], 1 - p[target]], [q[target], 1 - q[target]])


def loop_non_target(q, p, target):
    others = [[x / (1 - values[target]) for c, x in enumerate(values) if c != target] for values in (p, q)]
    return loop_kl(*others)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("part, loop", [(target_class_kl, loop_target), (non_target_class_kl, loop_non_target)])
def test_the_equations_in_loops(part, loop, temperature):
    student, teacher = random_logits(2, 3, 4)
    values = part(student, teacher, TARGETS, temperature=temperature)
    assert values.shape == (2, 3)
    for row in range(2):
        for column in range(3):
            q, p = (loop_distribution(logits[row, column].tolist(), temperature) for logits in (student, teacher))
            target = TARGETS[row, column].item()
            expected = temperature**2 * loop(q, p, target) if target >= 0 else 0.0
            assert values[row, column].item() == pytest.approx(expected, rel=1e-10)
    assert values.count_nonzero() == 5


def test_the_parts_make_up_the_whole():
    student, teacher = random_logits(2, 3, 4)
    targets = TARGETS.clamp(min=0)
    unsure = 1 - torch.softmax(teacher / 3, dim=-1).gather(-1, targets[..., None]).squeeze(-1)
    parts = [part(student, teacher, targets, temperature=3.0) for part in (target_class_kl, non_target_class_kl)]
    torch.testing.assert_close(parts[0] + unsure * parts[1], forward_kl(student, teacher, temperature=3.0))


def test_values_of_another_implementation():
    """dkd_loss of megvii-research/mdistiller at a08d46f, with temperature 4, and alpha and beta (1, 0) and (0, 1)."""
    student, teacher = wave(3, 4, step=1.7, scale=3), wave(3, 4, step=2.3, scale=3)
    targets = torch.tensor([2, 0, 3])
    values = [part(student, teacher, targets, temperature=4.0) for part in (target_class_kl, non_target_class_kl)]
    assert values[0].mean().item() == pytest.approx(0.259255579265832, rel=1e-10)
    assert values[1].mean().item() == pytest.approx(4.5992032088430586, rel=1e-10)


@every_part
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_zero_at_equality(part, dtype):
    logits, _ = random_logits(2, 3, 4, dtype=dtype)
    values, gradient = value_and_gradient(part, logits, logits.clone(), TARGETS, temperature=2.0)
    assert torch.equal(values, torch.zeros_like(values))
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)


@every_part
def test_mask_equals_slicing_also_if_nan_stands_there(part):
    """A position without a target is one that does not count."""
    student, teacher = random_logits(2, 3, 4)
    mask = torch.tensor([[True, True, True], [False, True, True]])
    counted = mask & (TARGETS >= 0)
    student[~counted] = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0], dtype=torch.float64)
    teacher[~counted] = torch.nan
    targets = TARGETS.clone()
    targets[1, 0] = 255  # no class, at a position that does not count
    part = partial(part, temperature=2.0)
    values, gradient = value_and_gradient(part, student, teacher, targets, mask=mask)
    expected, expected_gradient = value_and_gradient(part, student[counted], teacher[counted], TARGETS[counted])
    torch.testing.assert_close(values[counted], expected)
    torch.testing.assert_close(gradient[counted], expected_gradient)
    assert values[~counted].tolist() == [0, 0]
    assert torch.equal(gradient[~counted], torch.zeros(2, 4, dtype=torch.float64))


@every_part
def test_a_class_that_neither_has_equals_dropping_it(part):
    student, teacher = random_logits(2, 3, 5)
    student[..., 4] = teacher[..., 4] = -torch.inf
    values, gradient = value_and_gradient(part, student, teacher, TARGETS)
    expected, expected_gradient = value_and_gradient(part, student[..., :4], teacher[..., :4], TARGETS)
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(gradient[..., :4], expected_gradient)


def test_of_two_classes_there_is_one_other():
    student, teacher = random_logits(5, 2)
    targets = torch.tensor([0, 1, 1, 0, 1])
    torch.testing.assert_close(target_class_kl(student, teacher, targets), forward_kl(student, teacher))
    values, gradient = value_and_gradient(non_target_class_kl, student, teacher, targets)
    assert torch.equal(values, torch.zeros_like(values)) and torch.equal(gradient, torch.zeros_like(gradient))


@every_part
def test_finite_where_the_models_are_sure_of_different_classes(part):
    """1 − p is taken from the other classes' logits, so it is never 1 − 1."""
    student, teacher = torch.tensor([[1e4, 0.0, -1e4]]), torch.tensor([[-1e4, 0.0, 1e4]])
    for target in range(3):
        values, gradient = value_and_gradient(part, student, teacher, torch.tensor([target]))
        assert values.isfinite().all() and gradient.isfinite().all()
    sure = torch.tensor([[40.0, 0.0, 0.0]])
    surer = torch.tensor([[60.0, 0.0, 0.0]])
    value = target_class_kl(surer, sure, torch.tensor([0])).item()
    assert value == pytest.approx(2 * math.exp(-40) * 19, rel=1e-2)


@every_part
@pytest.mark.parametrize("masked", [False, True])
def test_gradcheck_of_student_and_teacher(part, masked):
    student, teacher = (logits.requires_grad_() for logits in random_logits(2, 3, 4))
    mask = torch.tensor([[True, True, False], [True, True, True]]) if masked else None
    assert torch.autograd.gradcheck(
        lambda ours, theirs: part(ours, theirs, TARGETS, temperature=2.0, mask=mask), (student, teacher)
    )


@every_part
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(part, dtype):
    student, teacher = random_logits(2, 3, 4, dtype=dtype)
    values, gradient = value_and_gradient(part, student, teacher, TARGETS, temperature=2.0)
    expected, _ = value_and_gradient(part, student.double(), teacher.double(), TARGETS, temperature=2.0)
    assert values.dtype == torch.float32 and gradient.dtype == dtype
    torch.testing.assert_close(values, expected.float(), rtol=1e-4, atol=1e-5)


@every_part
def test_nothing_reads_a_value_on_the_host_and_it_compiles_without_a_break(part):
    logits = torch.empty(2, 3, 4, device="meta", requires_grad=True)
    where = torch.empty(2, 3, device="meta", dtype=torch.int64)
    part(logits, torch.empty(2, 3, 4, device="meta"), where, mask=where.bool()).sum().backward()
    torch.compiler.reset()
    compiled = torch.compile(part, backend="eager", fullgraph=True)
    student, teacher = random_logits(2, 3, 4)
    for temperature in (4.0, 3.0, 1.0):
        expected = value_and_gradient(part, student, teacher, TARGETS, temperature=temperature)
        for tensor, other in zip(
            value_and_gradient(compiled, student, teacher, TARGETS, temperature=temperature), expected, strict=True
        ):
            torch.testing.assert_close(tensor, other)


@every_part
def test_refusals(part):
    logits, targets = torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ConfigurationError, match=r"targets are torch\.float32 of shape \(2,\)"):
        part(logits, logits, targets.float())
    with pytest.raises(ConfigurationError, match=r"of shape \(3,\), and there are logits at the positions \(2,\)"):
        part(logits, logits, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ConfigurationError, match=r"shape \(2, 4\) and teacher_logits \(2, 3\)"):
        part(logits, torch.zeros(2, 3), targets)
    with pytest.raises(ConfigurationError, match="temperature must be a finite number above 0, got 0"):
        part(logits, logits, targets, temperature=0)

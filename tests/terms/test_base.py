"""What holds for every term."""

import math
from dataclasses import replace

import pytest
import torch

from hf_distill.errors import ConfigurationError
from hf_distill.functional import (
    forward_kl,
    inter_class_pearson_distance,
    jensen_shannon,
    logit_mse,
    non_target_class_kl,
    reverse_kl,
    skewed_kl,
    skewed_reverse_kl,
    standardized_divergence,
    target_class_kl,
    total_variation,
)
from hf_distill.terms import (
    BoxTerm,
    ContrastiveTerm,
    DecoupledTerm,
    HardLabelTerm,
    HiddenStateTerm,
    IntraClassTerm,
    RelationTerm,
    RowRelationTerm,
    SoftTargetTerm,
    Term,
    UniversalLogitTerm,
)
from hf_distill.types import Positions, Requirements, Signals, Unit


TERMS = {
    "labels": HardLabelTerm(),
    "boxes": BoxTerm(),
    **{
        divergence.__name__: SoftTargetTerm(temperature=2.0, divergence=divergence)
        for divergence in (
            *(forward_kl, reverse_kl, jensen_shannon, total_variation, logit_mse, skewed_kl, skewed_reverse_kl),
            *(standardized_divergence, inter_class_pearson_distance),
        )
    },
    **{
        part.__name__: DecoupledTerm(temperature=2.0, divergence=part)
        for part in (target_class_kl, non_target_class_kl)
    },
    "intra_class": IntraClassTerm(temperature=2.0),
    "universal_logits": UniversalLogitTerm(temperature=2.0),
}
TARGETS = torch.tensor([[0, 1, 2, 3], [4, 0, 1, 2], [3, 4, 0, 1]])
COMPARING = [name for name in TERMS if name != "labels"]


def signals(rows=3, classes=5, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 4, classes, generator=generator).to(dtype)


def said(logits):
    """The last of the classes is "no object", and the other four make a box."""
    return Signals(logits, boxes=logits[..., :4].float().sigmoid())


def where(mask, targets=TARGETS):
    return Positions(mask, {Unit.LABEL: mask.sum(), Unit.POSITION: mask.sum()}, targets=targets)


def everywhere(targets=TARGETS):
    return where(torch.ones_like(targets, dtype=torch.bool), targets)


def student_of(logits):
    return replace(said(logits), label_loss=logits.float().square().sum())


@pytest.mark.parametrize("name", TERMS)
def test_a_sum_with_its_count(name):
    loss = TERMS[name](student_of(signals()), said(signals(seed=1)), everywhere(), 0.0)
    assert loss.total.ndim == 0 and loss.count.ndim == 0
    assert loss.total.dtype == torch.float32
    assert loss.total > 0 and loss.count == 12


@pytest.mark.parametrize("name", TERMS)
def test_requires_is_truthful(name):
    """What a term does not ask for it does not need."""
    term = TERMS[name]
    teacher = said(signals(seed=1)) if term.requires.teacher else None
    logits = signals()
    student = student_of(logits) if term.requires.labels else said(logits)
    assert term(student, teacher, everywhere(), 0.0).total > 0
    assert term.requires != Requirements()


@pytest.mark.parametrize("name", COMPARING)
def test_zero_where_student_and_teacher_agree(name):
    loss = TERMS[name](said(signals()), said(signals()), everywhere(), 0.0)
    assert loss.total.item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("name", COMPARING)
def test_a_mask_is_a_slice(name):
    mask = torch.tensor([[True, True, False, False], [False] * 4, [True, False, True, True]])
    student, teacher = signals(), signals(seed=1)
    masked = TERMS[name](said(student), said(teacher), where(mask), 0.0)
    sliced = TERMS[name](said(student[mask]), said(teacher[mask]), where(mask[mask], TARGETS[mask]), 0.0)
    assert masked.count == sliced.count == 5
    assert torch.allclose(masked.total, sliced.total, rtol=1e-6)


@pytest.mark.parametrize("name", COMPARING)
def test_nothing_counted_gives_zero_and_no_gradient(name):
    student = signals().requires_grad_()
    mask = torch.zeros(3, 4, dtype=torch.bool)
    loss = TERMS[name](said(student), said(torch.full_like(student, math.nan)), where(mask), 0.0)
    loss.total.backward()
    assert (loss.total.item(), loss.count.item()) == (0.0, 0)
    assert torch.equal(student.grad, torch.zeros_like(student))


@pytest.mark.parametrize("name", COMPARING)
def test_the_order_of_a_batch_changes_nothing(name):
    order = torch.tensor([2, 0, 1])
    student, teacher = signals(), signals(seed=1)
    straight = TERMS[name](said(student), said(teacher), everywhere(), 0.0)
    shuffled = TERMS[name](said(student[order]), said(teacher[order]), everywhere(TARGETS[order]), 0.0)
    assert torch.allclose(straight.total, shuffled.total, rtol=1e-6)


@pytest.mark.parametrize("name", TERMS)
def test_the_gradient_reaches_the_student_only(name):
    logits = signals().requires_grad_()
    teacher = signals(seed=1)
    TERMS[name](student_of(logits), said(teacher), everywhere(), 0.0).total.backward()
    assert logits.grad.norm() > 0
    assert teacher.grad is None and not teacher.requires_grad


@pytest.mark.parametrize("name", COMPARING)
def test_bfloat16_is_close_to_float32(name):
    student, teacher = signals(dtype=torch.bfloat16), signals(seed=1, dtype=torch.bfloat16)
    low = TERMS[name](said(student), said(teacher), everywhere(), 0.0)
    high = TERMS[name](said(student.float()), said(teacher.float()), everywhere(), 0.0)
    assert low.total.dtype == torch.float32
    assert torch.allclose(low.total, high.total, rtol=1e-5)


@pytest.mark.parametrize("name", COMPARING)
def test_an_accelerator_is_never_waited_for(name):
    """A meta tensor has no values, so whatever asks for one, as picking the positions that count does, fails."""
    student = torch.empty(3, 4, 5, device="meta", requires_grad=True)
    mask, targets = torch.empty(3, 4, device="meta", dtype=torch.bool), TARGETS.to("meta")
    loss = TERMS[name](said(student), said(torch.empty(3, 4, 5, device="meta")), where(mask, targets), 0.0)
    loss.total.backward()
    assert loss.total.ndim == loss.count.ndim == 0 and student.grad.shape == student.shape


def test_a_term_logs_nothing_by_itself():
    assert HardLabelTerm().log_values(0.5) == {}


def test_the_base_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Term()


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (SoftTargetTerm, "divergence", "forward_kl"),
        (HiddenStateTerm, "distance", None),
        (HiddenStateTerm, "side", "left"),
        (HiddenStateTerm, "layer_map", 3),
        (HiddenStateTerm, "layer_map", [(1, True)]),
        (HiddenStateTerm, "layer_map", [1, 2]),
        (RowRelationTerm, "distance", "rkd"),
        (RelationTerm, "relations", "queries"),
        (RelationTerm, "relations", 3),
        (RelationTerm, "relations", [["queries"]]),
        (RelationTerm, "num_relation_heads", 0),
        (RelationTerm, "num_relation_heads", 2.0),
        (RelationTerm, "relation_head_width", 0),
        (ContrastiveTerm, "temperature", "1"),
        (ContrastiveTerm, "projection_size", 4.0),
        (BoxTerm, "l1_weight", "5"),
    ],
)
def test_arguments_of_another_kind_are_refused(kind, name, value):
    with pytest.raises(ConfigurationError, match=f"{name}.* must .* got "):
        kind(**{name: value})

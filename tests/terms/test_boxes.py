"""The term of boxes against its formula, one pair at a time."""

import math

import pytest
import torch

from hf_distill.errors import ConfigurationError, MissingTeacherError, UnsupportedModelError
from hf_distill.terms import BoxTerm
from hf_distill.types import Positions, Signals, Unit
from tests.detection_reference import box_distance


def said(seed, no_object=True, images=2):
    """What a detector says: class scores of 3 classes, and 4 boxes an image."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, 4, 4 if no_object else 3, generator=generator)
    boxes = torch.cat(tuple(torch.rand(2, images, 4, 2, generator=generator)), dim=-1)
    return logits, boxes


def signals(logits, boxes, no_object=True):
    pairs = logits if no_object else torch.stack((logits, torch.zeros_like(logits)), dim=-1)
    return Signals(pairs, boxes=boxes)


def where(*images):
    mask = torch.tensor(images)
    return Positions(mask, {Unit.LABEL: torch.tensor(1), Unit.POSITION: mask.sum()})


@pytest.mark.parametrize("no_object", [True, False])
@pytest.mark.parametrize("images", [(True, True), (False, True)])
def test_equals_the_formula(no_object, images):
    (ours, our_boxes), (theirs, their_boxes) = said(0, no_object), said(1, no_object)
    loss = BoxTerm()(signals(ours, our_boxes, no_object), signals(theirs, their_boxes, no_object), where(*images), 0.0)
    expected = sum(
        box_distance(our_boxes[b, q], their_boxes[b, q], theirs[b, q], no_object)
        for b, counts in enumerate(images)
        if counts
        for q in range(4)
    )
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss.count == sum(images)


def test_a_box_without_an_object_counts_as_little_as_the_teacher_is_sure():
    logits, boxes = torch.tensor([[[0.0, 0.0, 12.0]]]), torch.tensor([[[0.5, 0.5, 0.2, 0.2]]])
    loss = BoxTerm()(signals(logits, boxes + 0.1), signals(logits, boxes), where(True), 0.0)
    sure = BoxTerm()(signals(-logits, boxes + 0.1), signals(-logits, boxes), where(True), 0.0)
    assert 0 < loss.total < 1e-4 * sure.total


def test_the_weights_of_its_two_parts():
    """A certain teacher, whose box is [0.4, 0.6] each way, and a student's of [0.55, 0.65]."""
    logits = torch.tensor([[[100.0, 0.0]]])
    theirs, ours = torch.tensor([[[0.5, 0.5, 0.2, 0.2]]]), torch.tensor([[[0.6, 0.6, 0.1, 0.1]]])
    around, shared = 0.25**2, 0.05**2
    union = 0.2**2 + 0.1**2 - shared
    for weights, expected in (((1.0, 0.0), 0.4), ((0.0, 1.0), 1 - shared / union + (around - union) / around)):
        loss = BoxTerm(*weights)(signals(logits, ours), signals(logits, theirs), where(True), 0.0)
        assert loss.total.item() == pytest.approx(expected, rel=1e-5)


def test_zero_where_the_boxes_are_equal():
    (ours, boxes), (theirs, _) = said(0), said(1)
    loss = BoxTerm()(signals(ours, boxes), signals(theirs, boxes.clone()), where(True, True), 0.0)
    assert loss.total.item() == pytest.approx(0.0, abs=1e-5)


def test_an_image_that_does_not_count_gives_nothing_even_if_it_is_nan():
    (ours, our_boxes), (theirs, their_boxes) = said(0), said(1)
    our_boxes[0], their_boxes[0], theirs[0] = math.nan, math.inf, math.nan
    our_boxes.requires_grad_()
    loss = BoxTerm()(signals(ours, our_boxes), signals(theirs, their_boxes), where(False, True), 0.0)
    loss.total.backward()
    assert loss.total.isfinite() and loss.total > 0
    assert torch.equal(our_boxes.grad[0], torch.zeros(4, 4))
    assert our_boxes.grad[1].isfinite().all() and our_boxes.grad[1].norm() > 0


def test_the_gradient_reaches_the_students_boxes_only():
    tensors = [tensor.requires_grad_() for tensor in (*said(0), *said(1))]
    loss = BoxTerm()(signals(*tensors[:2]), signals(*(each.detach() for each in tensors[2:])), where(True, True), 0.0)
    loss.total.backward()
    assert [each.grad is not None for each in tensors] == [False, True, False, False]


def test_half_precision_is_computed_in_float32():
    (ours, our_boxes), (theirs, their_boxes) = ((a.bfloat16(), b.bfloat16()) for a, b in (said(0), said(1)))
    low = BoxTerm()(signals(ours, our_boxes), signals(theirs, their_boxes), where(True, True), 0.0)
    high = BoxTerm()(
        signals(ours.float(), our_boxes.float()), signals(theirs.float(), their_boxes.float()), where(True, True), 0.0
    )
    assert low.total.dtype == torch.float32
    assert torch.allclose(low.total, high.total, rtol=1e-6)


@pytest.mark.parametrize("weights", [(-1.0, 2.0), (0.0, 0.0), (5.0, math.nan)])
def test_weights_that_are_none(weights):
    with pytest.raises(
        ConfigurationError, match=r"must be numbers that are not below 0, nor both 0, got .* DETR takes 5 and 2"
    ):
        BoxTerm(*weights)


def test_models_without_boxes():
    logits, boxes = said(0)
    with pytest.raises(UnsupportedModelError, match="these have none: student, teacher"):
        BoxTerm()(Signals(logits), Signals(logits), where(True, True), 0.0)
    with pytest.raises(UnsupportedModelError, match="these have none: teacher"):
        BoxTerm()(Signals(logits, boxes=boxes), Signals(logits), where(True, True), 0.0)


def test_without_a_teacher():
    with pytest.raises(MissingTeacherError, match="got teacher=None"):
        BoxTerm()(signals(*said(0)), None, where(True, True), 0.0)

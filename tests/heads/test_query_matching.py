"""Which box is which: against every pairing there is, and whatever the order of boxes and classes."""

import math
from types import SimpleNamespace

import pytest
import torch
from transformers.utils import import_utils

from hf_distill.errors import ClassMismatchError
from hf_distill.heads import FocalObjectDetectionHead, ObjectDetectionHead
from hf_distill.heads.alignment import Alignment, ClassAlignment
from hf_distill.heads.query_matching import (
    ObjectClassAlignment,
    QueryMatching,
    detection_alignment,
    matched_queries,
    matching_cost,
)
from hf_distill.types import Signals
from tests.detection_reference import best_pairs


def said(seed, queries=4, classes=3, no_object=True, images=3):
    generator = torch.Generator().manual_seed(seed)
    columns = classes + 1 if no_object else classes
    logits = 2 * torch.randn(images, queries, columns, generator=generator, dtype=torch.float64)
    parts = torch.rand(2, images, queries, 2, generator=generator, dtype=torch.float64)
    boxes = torch.cat((parts[0], 0.1 + 0.4 * parts[1]), dim=-1)
    pairs = logits if no_object else torch.stack((logits, torch.zeros_like(logits)), dim=-1)
    return Signals(pairs, boxes=boxes)


def raw(signals, image, no_object):
    return signals.logits[image] if no_object else signals.logits[image, ..., 0], signals.boxes[image]


def shuffled(signals, order):
    return Signals(signals.logits[:, order], boxes=signals.boxes[:, order])


@pytest.mark.parametrize("no_object", [True, False])
@pytest.mark.parametrize("ours, theirs", [(4, 4), (3, 5), (5, 3), (1, 4)])
def test_equals_the_best_of_all_pairings(ours, theirs, no_object):
    student, teacher = said(0, ours, no_object=no_object), said(1, theirs, no_object=no_object)
    found = matched_queries(matching_cost(student, teacher))
    for image in range(3):
        expected = best_pairs(raw(student, image, no_object), raw(teacher, image, no_object), no_object)
        assert list(zip(found[0][image].tolist(), found[1][image].tolist(), strict=True)) == expected
    aligned = QueryMatching(Alignment())(student, teacher)
    for signals, original, chosen in zip(aligned, (student, teacher), found, strict=True):
        assert signals.boxes.shape == (3, min(ours, theirs), 4)
        for image in range(3):
            assert torch.equal(signals.boxes[image], original.boxes[image][chosen[image]])
            assert torch.equal(signals.logits[image], original.logits[image][chosen[image]])


@pytest.mark.parametrize("no_object", [True, False])
def test_the_order_of_the_teachers_queries_changes_nothing(no_object):
    student, teacher = said(0, no_object=no_object), said(1, 6, no_object=no_object)
    straight = QueryMatching(Alignment())(student, teacher)
    other = QueryMatching(Alignment())(student, shuffled(teacher, torch.tensor([4, 2, 0, 5, 1, 3])))
    for one, two in zip(straight, other, strict=True):
        assert torch.equal(one.logits, two.logits) and torch.equal(one.boxes, two.boxes)


def test_a_shuffled_copy_is_paired_with_itself():
    student = said(0, 6)
    aligned, teacher = QueryMatching(Alignment())(student, shuffled(student, torch.tensor([4, 2, 0, 5, 1, 3])))
    assert torch.equal(aligned.boxes, teacher.boxes) and torch.equal(aligned.logits, teacher.logits)


def test_the_cost_of_a_certain_teacher_is_detrs():
    """Minus the probability of its class, up to the constant 1, as in the matching cost of DETR."""
    student = said(0)
    certain = Signals(torch.full((3, 4, 4), -1e4).double(), boxes=student.boxes)
    certain.logits[..., 2] = 1e4
    cost = matching_cost(student, certain).diagonal(dim1=1, dim2=2)
    assert torch.allclose(cost, 1 - student.logits.softmax(-1)[..., 2], atol=1e-6)


def test_no_gradient_passes_through_the_choice_and_it_does_through_the_chosen():
    student, teacher = said(0), said(1)
    student.logits.requires_grad_()
    assert not matching_cost(student, teacher).requires_grad
    QueryMatching(Alignment())(student, teacher)[0].logits.sum().backward()
    assert torch.equal(student.logits.grad, torch.ones_like(student.logits))


def test_a_student_that_has_diverged_is_still_paired():
    costs = torch.tensor([[[math.nan, 1.0], [math.inf, 2.0]], [[3.0, 1.0], [1.0, math.nan]]])
    ours, theirs = matched_queries(costs)
    assert ours.tolist() == [[0, 1], [0, 1]]
    assert sorted(theirs[0].tolist()) == [0, 1] and theirs[1].tolist() == [1, 0]


def test_dtypes_may_differ():
    student, teacher = said(0), said(1)
    low = Signals(student.logits.bfloat16(), boxes=student.boxes.bfloat16())
    assert matching_cost(low, teacher).dtype == torch.float64
    assert QueryMatching(Alignment())(low, teacher)[0].logits.dtype == torch.bfloat16


def config(*names):
    return SimpleNamespace(id2label=dict(enumerate(names)), num_labels=len(names))


@pytest.mark.parametrize("head", [ObjectDetectionHead(), FocalObjectDetectionHead()])
def test_the_order_of_the_teachers_classes_changes_nothing(head):
    no_object = type(head) is ObjectDetectionHead
    student, teacher = said(0, no_object=no_object), said(1, 6, no_object=no_object)
    order = torch.tensor([2, 0, 1, 3] if no_object else [2, 0, 1])
    permuted = Signals(teacher.logits[:, :, order], boxes=teacher.boxes)
    plain = detection_alignment(config("cat", "dog", "car"), config("cat", "dog", "car"), head)
    by_name = detection_alignment(config("cat", "dog", "car"), config("Car ", "cat", "dog"), head)
    for one, two in zip(plain(student, teacher), by_name(student, permuted), strict=True):
        assert torch.equal(one.logits, two.logits) and torch.equal(one.boxes, two.boxes)


def test_a_class_that_the_student_lacks_is_no_object():
    probabilities = torch.tensor([[[0.1, 0.6, 0.1, 0.2]]], dtype=torch.float64)
    teacher = Signals(probabilities.log(), boxes=torch.zeros(1, 1, 4))
    head = ObjectDetectionHead()
    alignment = detection_alignment(config("car", "cat"), config("cat", "zebra", "car"), head)
    assert isinstance(alignment.classes, ObjectClassAlignment)
    student = Signals(torch.zeros(1, 1, 3, dtype=torch.float64), boxes=torch.zeros(1, 1, 4))
    found = alignment(student, teacher)[1].logits.softmax(-1)
    assert torch.allclose(found, torch.tensor([[[0.1, 0.1, 0.8]]], dtype=torch.float64))


def test_a_yes_or_no_that_the_student_lacks_is_left_out():
    alignment = detection_alignment(config("car", "cat"), config("cat", "zebra", "car"), FocalObjectDetectionHead())
    assert type(alignment.classes) is ClassAlignment
    student, teacher = said(0, classes=2, no_object=False), said(1, classes=3, no_object=False)
    assert torch.equal(alignment.classes(student, teacher)[1].logits, teacher.logits[:, :, [2, 0]])


def test_a_class_that_the_teacher_lacks():
    with pytest.raises(ClassMismatchError, match=r"which lacks \['zebra'\]"):
        detection_alignment(config("cat", "zebra"), config("cat", "dog"), ObjectDetectionHead())


def test_names_that_only_the_teacher_repeats():
    """The published DETRs of COCO call eleven classes 'N/A'."""
    alignment = detection_alignment(config("dog", "cat"), config("N/A", "cat", "N/A", "dog"), ObjectDetectionHead())
    assert alignment.classes.teacher_classes == (3, 1)


def test_without_scipy(monkeypatch):
    monkeypatch.setitem(import_utils.BACKENDS_MAPPING, "scipy", (lambda: False, import_utils.SCIPY_IMPORT_ERROR))
    with pytest.raises(ImportError, match=r"(?s)QueryMatching requires the scipy library.*`pip install scipy`"):
        QueryMatching(Alignment())

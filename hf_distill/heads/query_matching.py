"""Which box of the teacher is which of the student's: detectors answer in sets, which have no order."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers.utils.import_utils import requires_backends

from hf_distill.functional.boxes import generalized_iou
from hf_distill.heads.alignment import Alignment, ClassAlignment, class_alignment
from hf_distill.heads.detection import FocalObjectDetectionHead, ObjectDetectionHead
from hf_distill.types import Signals


CLASS_WEIGHT, L1_WEIGHT, GIOU_WEIGHT = 1.0, 5.0, 2.0
"""What DETR weighs the parts of its cost by, and Transformers in its configurations."""


class ObjectClassAlignment(ClassAlignment):
    """A detector whose last class is "no object", which has no name: a class that the student lacks is none either.

    In place of renormalising the teacher's distribution over the student's classes, which would make a zebra half a
    cat for a student that knows no zebras, its probability goes to "no object".

    Example:

        >>> teacher, student = Signals(torch.tensor([0.5, 0.3, 0.2]).log()), Signals(torch.zeros(2))
        >>> ObjectClassAlignment([1])(student, teacher)[1].logits.exp()
        tensor([0.3000, 0.7000])
    """

    def of_teacher(self, signals: Signals) -> Signals:
        objects = super().of_teacher(signals).logits
        rest = signals.logits.index_fill(-1, self._index, -torch.inf).logsumexp(dim=-1, keepdim=True)
        return replace(signals, logits=torch.cat((objects, rest), dim=-1))


class QueryMatching(Alignment):
    """Each image's boxes of the student, paired with those of the teacher at the least total cost.

        cost = ½ ‖p_student − p_teacher‖₁ + 5 ‖box_student − box_teacher‖₁ + 2 (1 − GIoU)

    with p the probabilities of the classes, "no object" included; where each class is a yes or no, the first part is
    Σ |p_student − p_teacher|. For a teacher that is certain of a class this is DETR's cost of a labelled object.
    The pairs are found by the Hungarian method, on the CPU, so each micro-batch waits for the device once. No gradient
    passes through the choice.

    Where one of the two has more boxes, those that find no partner are not compared: the teacher says nothing about
    such a box of the student, and the student has none to put in the place of such a box of the teacher.

    Args:
        classes: what makes the classes comparable, before the boxes are matched.

    Raises:
        ImportError: if SciPy is not installed.

    References:
        Carion et al.: End-to-End Object Detection with Transformers, 2020, https://arxiv.org/abs/2005.12872, section
        3.1, equation 1 and the matching cost below it, with the teacher's boxes in place of the labelled objects.
        Chang et al.: DETRDistill, 2023, https://arxiv.org/abs/2211.10156, section on Hungarian-matching logits
        distillation.

    Example:

        >>> boxes, logits = torch.tensor([[[0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1]]]), torch.zeros(1, 2, 3)
        >>> student, teacher = Signals(logits, boxes=boxes), Signals(logits, boxes=boxes.flip(1))
        >>> student, teacher = QueryMatching(Alignment())(student, teacher)
        >>> torch.equal(student.boxes, teacher.boxes)
        True
    """

    def __init__(self, classes: Alignment) -> None:
        requires_backends(self, ["scipy"])
        self.classes = classes

    def __call__(self, student: Signals, teacher: Signals) -> tuple[Signals, Signals]:
        student, teacher = self.classes(student, teacher)
        ours, theirs = matched_queries(matching_cost(student, teacher))
        return _picked(student, ours), _picked(teacher, theirs)


@torch.no_grad()
def matching_cost(student: Signals, teacher: Signals) -> Tensor:
    """`(B, Q_student, Q_teacher)`: the cost of every pair of queries."""
    boxes: Any = student.boxes, teacher.boxes
    overlap = generalized_iou(boxes[0][:, :, None], boxes[1][:, None])
    ours, theirs = (each.logits.to(overlap.dtype).softmax(dim=-1).flatten(2) for each in (student, teacher))
    classes = torch.cdist(ours, theirs, p=1) / 2
    l1 = torch.cdist(boxes[0].to(overlap.dtype), boxes[1].to(overlap.dtype), p=1)
    return CLASS_WEIGHT * classes + L1_WEIGHT * l1 + GIOU_WEIGHT * (1 - overlap)


def matched_queries(costs: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs of least total cost for each image: queries of the student, ascending, and their partners.

    A pair whose cost is not a number is the most expensive one, so that a student that has diverged shows it in its
    losses.

    Args:
        costs: `(B, Q_student, Q_teacher)`.

    Returns:
        Two of `(B, min(Q_student, Q_teacher))`, on the device of the costs.
    """
    from scipy.optimize import linear_sum_assignment  # an optional dependency

    largest = torch.finfo(costs.dtype).max
    finite = torch.nan_to_num(costs, nan=largest, posinf=largest, neginf=largest).cpu().numpy()
    pairs = [torch.stack([torch.from_numpy(side) for side in linear_sum_assignment(cost)]) for cost in finite]
    ours, theirs = torch.stack(pairs, dim=1).to(costs.device)
    return ours, theirs


def detection_alignment(student: Any, teacher: Any, head: ObjectDetectionHead) -> QueryMatching:
    """The student's classes among the teacher's, and then the student's boxes among the teacher's.

    Args:
        student, teacher: configurations.
        head: which of the two kinds of detectors they are.

    Raises:
        ClassMismatchError: as `class_alignment`.
        ImportError: as `QueryMatching`.
    """
    classes = class_alignment(student, teacher, head.class_axis)
    if isinstance(classes, ClassAlignment) and not isinstance(head, FocalObjectDetectionHead):
        classes = ObjectClassAlignment(classes.teacher_classes)
    return QueryMatching(classes)


def _picked(signals: Signals, queries: Tensor) -> Signals:
    """The signals of some queries, in their order."""
    rows = torch.arange(len(queries), device=queries.device)[:, None]
    boxes: Any = signals.boxes
    return replace(signals, logits=signals.logits[rows, queries], boxes=boxes[rows, queries])

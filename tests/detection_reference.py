"""Distillation of detectors in plain loops, written from the formulas alone, with every pairing of boxes tried."""

from itertools import permutations
from typing import Any

import torch
from torch import Tensor


def softmax(logits: Tensor) -> list[Tensor]:
    powers = [torch.exp(logit) for logit in logits]
    return [power / sum(powers) for power in powers]


def sigmoid(logit: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-logit))


def l1(ours: Tensor, theirs: Tensor) -> Tensor:
    return sum(abs(mine - yours) for mine, yours in zip(ours, theirs, strict=True))


def giou(ours: Tensor, theirs: Tensor) -> Tensor:
    """Of two boxes as centre, width and height, by algorithm 1 of Rezatofighi et al."""

    def corners(box: Any) -> tuple[Any, Any, Any, Any]:
        x, y, width, height = box
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2

    (ax, ay, bx, by), (cx, cy, dx, dy) = corners(ours), corners(theirs)
    wide, high = min(bx, dx) - max(ax, cx), min(by, dy) - max(ay, cy)
    shared = wide * high if wide > 0 and high > 0 else 0.0
    union = (bx - ax) * (by - ay) + (dx - cx) * (dy - cy) - shared
    around = (max(bx, dx) - min(ax, cx)) * (max(by, dy) - min(ay, cy))
    return shared / union - (around - union) / around


def class_distance(ours: Tensor, theirs: Tensor, has_no_object: bool) -> Tensor:
    if has_no_object:
        return sum(abs(q - p) for q, p in zip(softmax(ours), softmax(theirs), strict=True)) / 2
    return sum(abs(sigmoid(z) - sigmoid(t)) for z, t in zip(ours, theirs, strict=True))


def best_pairs(ours: Any, theirs: Any, has_no_object: bool) -> list[tuple[int, int]]:
    """The pairs `(of the student, of the teacher)` of least total cost among all that there are.

    Args:
        ours, theirs: logits `(Q, C)` and boxes `(Q, 4)` of one image.
    """
    (our_logits, our_boxes), (their_logits, their_boxes) = ((a.detach(), b.detach()) for a, b in (ours, theirs))

    def cost(i: int, j: int) -> float:
        a, b = our_boxes[i], their_boxes[j]
        classes = class_distance(our_logits[i], their_logits[j], has_no_object)
        return float(classes + 5 * l1(a, b) + 2 * (1 - giou(a, b)))

    table = [[cost(i, j) for j in range(len(their_boxes))] for i in range(len(our_boxes))]
    if len(our_boxes) <= len(their_boxes):
        choices = [list(enumerate(chosen)) for chosen in permutations(range(len(their_boxes)), len(our_boxes))]
    else:
        chosen = permutations(range(len(our_boxes)), len(their_boxes))
        choices = [[(i, j) for j, i in enumerate(each)] for each in chosen]
    return sorted(min(choices, key=lambda pairs: sum(table[i][j] for i, j in pairs)))


def class_kl(ours: Tensor, theirs: Tensor, temperature: float, has_no_object: bool) -> Tensor:
    """T² · KL(teacher ‖ student) of one pair, over the classes or over each class's yes or no."""
    if has_no_object:
        q, p = softmax(ours / temperature), softmax(theirs / temperature)
        return temperature**2 * sum(b * torch.log(b / a) for a, b in zip(q, p, strict=True))
    total: Any = 0.0
    for z, t in zip(ours / temperature, theirs / temperature, strict=True):
        q, p = sigmoid(z), sigmoid(t)
        total = total + p * torch.log(p / q) + (1 - p) * torch.log((1 - p) / (1 - q))
    return temperature**2 * total


def box_distance(ours: Tensor, theirs: Tensor, their_logits: Tensor, has_no_object: bool) -> Tensor:
    """Of one pair, weighed by the teacher's score."""
    scores = softmax(their_logits)[:-1] if has_no_object else [sigmoid(logit) for logit in their_logits]
    return max(scores) * (5 * l1(ours, theirs) + 2 * (1 - giou(ours, theirs)))


def reference_means(
    student: Any, teacher: Any, batches: list[dict[str, Any]], temperature: float, has_no_object: bool
) -> dict[str, Tensor]:
    """Each term's sum over the pairs of an image, averaged over images that are given one by one."""
    soft: Any = 0.0
    boxes: Any = 0.0
    for batch in batches:
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        ours, theirs = student(**inputs), teacher(**inputs)
        mine = ours.logits[0], ours.pred_boxes[0]
        yours = theirs.logits[0].detach(), theirs.pred_boxes[0].detach()
        for i, j in best_pairs(mine, yours, has_no_object):
            soft = soft + class_kl(mine[0][i], yours[0][j], temperature, has_no_object)
            boxes = boxes + box_distance(mine[1][i], yours[1][j], yours[0][j], has_no_object)
    return {"soft": soft / len(batches), "boxes": boxes / len(batches)}

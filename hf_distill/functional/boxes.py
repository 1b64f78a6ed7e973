"""How far a student's box is from a teacher's."""

import torch
from torch import Tensor

from hf_distill.errors import ConfigurationError


def generalized_iou(student_boxes: Tensor, teacher_boxes: Tensor) -> Tensor:
    """The generalised intersection over union of two boxes: 1 if they are equal, and below 0 if they lie far apart.

        |S ∩ T| / |S ∪ T| − (|H| − |S ∪ T|) / |H|,  H the smallest box around both

    Shapes: … boxes, any axes that broadcast, so that `(Q, 1, 4)` with `(R, 4)` gives every pair. Two boxes without
    area have nothing to divide by, and give 0.

    Args:
        student_boxes: `(…, 4)`, any float dtype: centre x, centre y, width and height, the latter 0 or more.
        teacher_boxes: `(…, 4)`, likewise.

    Returns:
        `(…)`, float32 or float64, in [−1, 1].

    Raises:
        ConfigurationError: if a box has not four numbers.

    References:
        Rezatofighi et al.: Generalized Intersection over Union, 2019, https://arxiv.org/abs/1902.09630, algorithm 1.

    Example:

        >>> import torch
        >>> left, right = torch.tensor([1.0, 1.0, 2.0, 2.0]), torch.tensor([2.0, 1.0, 2.0, 2.0])
        >>> generalized_iou(left, right)  # 2 of 6, and nothing of the box around both is left over
        tensor(0.3333)
    """
    if student_boxes.shape[-1:] != (4,) or teacher_boxes.shape[-1:] != (4,):
        raise ConfigurationError(
            f"student_boxes have shape {tuple(student_boxes.shape)} and teacher_boxes {tuple(teacher_boxes.shape)}. "
            "Pass boxes of four numbers on the last axis: centre x, centre y, width and height."
        )
    dtype = torch.promote_types(torch.promote_types(student_boxes.dtype, teacher_boxes.dtype), torch.float32)
    student, teacher = student_boxes.to(dtype), teacher_boxes.to(dtype)
    (our_low, our_high), (their_low, their_high) = _corners(student), _corners(teacher)
    shared = (torch.minimum(our_high, their_high) - torch.maximum(our_low, their_low)).clamp(min=0).prod(dim=-1)
    union = student[..., 2:].prod(dim=-1) + teacher[..., 2:].prod(dim=-1) - shared
    hull = (torch.maximum(our_high, their_high) - torch.minimum(our_low, their_low)).prod(dim=-1)
    smallest = torch.finfo(dtype).eps
    return shared / union.clamp(min=smallest) - (hull - union) / hull.clamp(min=smallest)


def _corners(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The lower and the upper corner, each `(…, 2)`."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return centre - half, centre + half

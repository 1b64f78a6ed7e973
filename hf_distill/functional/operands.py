"""The vectors of student and teacher, checked and made ready to be compared."""

from torch import Tensor

from hf_distill.errors import ConfigurationError
from hf_distill.functional.masking import check_mask, keep_counted
from hf_distill.functional.precision import computation_dtype


def counted_features(
    student_features: Tensor,
    teacher_features: Tensor,
    mask: Tensor | None,
    *,
    num_axes: int | None = None,
    widths_may_differ: bool = False,
) -> tuple[Tensor, Tensor]:
    """Both features in float32 (float64 if either is), with exact zeros at positions that do not count.

    Args:
        student_features: `(…, D)`.
        teacher_features: `(…, D)`.
        mask: bool `(…)`, True where a position counts. None counts all.
        num_axes: the number of axes that the features must have. None allows any from 1.
        widths_may_differ: whether the last axes may differ.

    Raises:
        ConfigurationError: if the features do not fit each other, are no floats, or the mask does not fit them.

    Example:

        >>> import torch
        >>> student, teacher = torch.ones(2, 3), torch.full((2, 3), float("nan"))
        >>> counted_features(student, teacher, torch.tensor([False, False]))[1].sum()
        tensor(0.)
    """
    shapes = tuple(student_features.shape), tuple(teacher_features.shape)
    faults = []
    compared = [shape[:-1] if widths_may_differ else shape for shape in shapes]
    if compared[0] != compared[1] or () in shapes or len(shapes[0]) != len(shapes[1]):
        remedy = (
            "Pass features of the same positions, their widths on the last axis."
            if widths_may_differ
            else "Project the student's features to the teacher's width first, and pass features of one shape."
        )
        faults.append(f"student_features have shape {shapes[0]} and teacher_features {shapes[1]}. {remedy}")
    elif num_axes not in (None, len(shapes[0])):
        faults.append(
            f"student_features and teacher_features have {len(shapes[0])} axes, {shapes[0]}, and {num_axes} are "
            "needed. Flatten or pool the other axes first."
        )
    if not (student_features.is_floating_point() and teacher_features.is_floating_point()):
        faults.append(
            f"student_features are {student_features.dtype} and teacher_features {teacher_features.dtype}. Pass "
            "features of a floating-point dtype."
        )
    if faults:
        raise ConfigurationError(" ".join(faults))
    check_mask(mask, student_features.shape[:-1])
    dtype = computation_dtype(student_features, teacher_features)
    return keep_counted(student_features.to(dtype), mask), keep_counted(teacher_features.to(dtype), mask)

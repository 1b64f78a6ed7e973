"""How well the student's probabilities correlate with the teacher's, where a divergence would ask them to be equal.

The contract is that of `divergences`, and the temperature divides both logits; but there is no factor T², since the
size of a correlation's gradient does not depend on T.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hf_distill.functional.divergences import distributions
from hf_distill.functional.masking import keep_counted


_MIN_LENGTH = 1e-8
"""Deviations shorter than this are taken for none, as by the authors' code: they are rounding."""


def inter_class_pearson_distance(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """One minus the correlation of the class probabilities of one position.

        1 − ρ(q, p),  p = softmax(teacher / T),  q = softmax(student / T),  ρ over the classes

    Shapes: … positions, any number of axes; C classes.

    Args:
        student_logits: `(…, C)`, any float dtype.
        teacher_logits: `(…, C)`, any float dtype.
        temperature: T > 0, dividing both logits.
        mask: bool `(…)`, True where a position counts. None counts all.

    Returns:
        `(…)`, float32 or float64, in [0, 2]. Where one distribution is uniform, and ρ undefined, it is ½.

    Raises:
        ConfigurationError: as `forward_kl`.

    References:
        Huang, You, Wang, Qian, Xu: Knowledge Distillation from A Stronger Teacher, 2022,
        https://arxiv.org/abs/2205.10536, the loss L_inter.

    Example:

        >>> import torch
        >>> student, teacher = torch.tensor([2.0, 1.0, 1.0]).log(), torch.tensor([1.0, 2.0, 1.0]).log()
        >>> inter_class_pearson_distance(student, teacher)  # deviations (2, −1, −1) and (−1, 2, −1): ρ = −½
        tensor(1.5000)
    """
    q, p = distributions(student_logits, teacher_logits, temperature, mask)
    absent = torch.isneginf(student_logits) & torch.isneginf(teacher_logits)
    return keep_counted(_pearson_distance(q, p, ~absent, dim=-1), mask)


def intra_class_pearson_distance(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """One minus the correlation of one class's probabilities at all positions.

        1 − ρ(q_c, p_c),  p = softmax(teacher / T),  q = softmax(student / T),  ρ over the positions

    It compares the positions **of one micro-batch** with each other, so it and its gradient depend on how a batch is
    split into micro-batches and over processes, and cannot be invariant to it.

    Shapes: … positions, any number of axes; C classes.

    Args:
        student_logits: `(…, C)`, any float dtype.
        teacher_logits: `(…, C)`, any float dtype.
        temperature: T > 0, dividing both logits.
        mask: bool `(…)`, True where a position counts. None counts all.

    Returns:
        `(C,)`, float32 or float64, in [0, 2]; 0 for a single position, and for a class that neither has.

    Raises:
        ConfigurationError: as `forward_kl`.

    References:
        Huang, You, Wang, Qian, Xu: Knowledge Distillation from A Stronger Teacher, 2022,
        https://arxiv.org/abs/2205.10536, the loss L_intra.

    Example:

        >>> import torch
        >>> teacher = torch.tensor([[2.0, 2.0], [1.0, 3.0], [1.0, 3.0]]).log()
        >>> intra_class_pearson_distance(teacher[[1, 0, 2]], teacher)
        tensor([1.5000, 1.5000])
    """
    q, p = (tensor.flatten(0, -2) for tensor in distributions(student_logits, teacher_logits, temperature, mask))
    counted = torch.ones_like(q[:, 0], dtype=torch.bool) if mask is None else mask.flatten()
    return _pearson_distance(q, p, counted[:, None], dim=0)


def _pearson_distance(student: Tensor, teacher: Tensor, counted: Tensor, dim: int) -> Tensor:
    """1 − ρ along an axis, over what counts, as ½ ‖ŝ − t̂‖² of unit deviations, which loses no digits near ρ = 1."""
    num_counted = counted.sum(dim=dim, keepdim=True).clamp(min=1)
    units = []
    for values in (student, teacher):
        mean = values.masked_fill(~counted, 0.0).sum(dim=dim, keepdim=True) / num_counted
        units.append(normalize((values - mean).masked_fill(~counted, 0.0), dim=dim, eps=_MIN_LENGTH))
    return 0.5 * torch.sub(*units).square().sum(dim=dim)

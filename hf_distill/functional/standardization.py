"""Logits whose scale is taken out before they are compared."""

from collections.abc import Callable

import torch
from torch import Tensor

from hf_distill.functional.divergences import check_logits, forward_kl
from hf_distill.functional.masking import keep_counted
from hf_distill.functional.precision import computation_dtype


_MIN_VARIANCE = 1e-12
"""Added to the variance, so that logits that are all equal have z-scores of 0."""


def standardized_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    divergence: Callable[..., Tensor] = forward_kl,
) -> Tensor:
    """A divergence of z-scores in place of logits, so that a student need not match the size of the teacher's logits.

        divergence(Z(student), Z(teacher)),  Z(z) = (z − mean(z)) / std(z), over the classes that exist

    A student too small to make its logits as large as the teacher's can still be at distance 0: only what is greater
    than what, and by how much relative to the rest, is compared.

    Shapes: … positions, any number of axes; C classes.

    Args:
        student_logits: `(…, C)`, any float dtype.
        teacher_logits: `(…, C)`, any float dtype.
        temperature: T > 0, dividing the z-scores of both: the paper's base temperature. Since z-scores are at most
            √C, it makes distributions soft sooner than with logits.
        mask: bool `(…)`, True where a position counts. None counts all.
        divergence: a function with the signature of `forward_kl`.

    Returns:
        `(…)`, float32 or float64, the unit of `divergence`.

    Raises:
        ConfigurationError: as `divergence`.

    References:
        Sun, Ren, Li, Wang, Cao: Logit Standardization in Knowledge Distillation, 2024,
        https://arxiv.org/abs/2403.01427, algorithms 1 and 2 (the authors' code divides the sum of squares by C − 1).

    Example:

        >>> import torch
        >>> teacher = torch.tensor([1.0, 2.0, 6.0])
        >>> standardized_divergence(0.1 * teacher + 5, teacher).abs() < 1e-6
        tensor(True)
    """
    check_logits(student_logits, teacher_logits, temperature, mask)
    dtype = computation_dtype(student_logits, teacher_logits)
    z_scores = (_z_scores(keep_counted(logits.to(dtype), mask)) for logits in (student_logits, teacher_logits))
    return divergence(*z_scores, temperature=temperature, mask=mask)


def _z_scores(logits: Tensor) -> Tensor:
    """Logits less their mean, divided by their standard deviation; minus infinity stays so and is not counted."""
    absent = torch.isneginf(logits)
    num_classes = (~absent).sum(dim=-1, keepdim=True).clamp(min=1)
    mean = logits.masked_fill(absent, 0.0).sum(dim=-1, keepdim=True) / num_classes
    centred = (logits - mean).masked_fill(absent, 0.0)
    variance = centred.square().sum(dim=-1, keepdim=True) / num_classes
    return (centred * torch.rsqrt(variance + _MIN_VARIANCE)).masked_fill(absent, -torch.inf)

"""The two parts of `forward_kl`, decoupled: how likely the labelled class is, and how the others compare.

The contract is that of `divergences`. A position without a target (below 0, as −100) does not count. With p_t the
teacher's probability of the target,

    forward_kl = target_class_kl + (1 − p_t) · non_target_class_kl

so where the teacher is sure, `forward_kl` all but leaves out what it thinks of the other classes.
"""

import torch
from torch import Tensor

from hf_distill.errors import ConfigurationError
from hf_distill.functional.divergences import check_logits, forward_kl
from hf_distill.functional.masking import keep_counted
from hf_distill.functional.precision import computation_dtype


def target_class_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """The Kullback-Leibler divergence between the probabilities that it is the labelled class, or any other.

        T² · (p_t · (log p_t − log q_t) + (1 − p_t) · (log(1 − p_t) − log(1 − q_t)))

    with p the teacher's and q the student's softened distribution, and t the target. It is TCKD of the paper.

    Shapes: … positions, any number of axes; C classes, at least 2.

    Args:
        student_logits: `(…, C)`, any float dtype.
        teacher_logits: `(…, C)`, any float dtype.
        targets: `(…)`, int64, the class of each position; below 0 where there is none.
        temperature: T > 0, dividing both logits.
        mask: bool `(…)`, True where a position counts. None counts all that have a target.

    Returns:
        `(…)`, float32 or float64, nats times T² per position.

    Raises:
        ConfigurationError: as `forward_kl`, or if there is not an int64 target for each position.

    References:
        Zhao, Cui, Song, Qiu, Liang: Decoupled Knowledge Distillation, 2022, https://arxiv.org/abs/2203.08679,
        section 3.

    Example:

        >>> import torch
        >>> student, teacher = torch.tensor([1.0, 0.0, 0.0]).log1p(), torch.tensor([0.0, 0.0, 2.0]).log1p()
        >>> target_class_kl(student, teacher, torch.tensor(0))  # ⅕ log(⅕ / ½) + ⅘ log(⅘ / ½)
        tensor(0.1927)
    """
    mask = _counted(student_logits, teacher_logits, targets, temperature, mask)
    dtype = computation_dtype(student_logits, teacher_logits)
    pairs = (
        _target_or_other(keep_counted(logits.to(dtype), mask) / temperature, targets.masked_fill(~mask, 0))
        for logits in (student_logits, teacher_logits)
    )
    return temperature**2 * forward_kl(*pairs, mask=mask)


def non_target_class_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """The Kullback-Leibler divergence between the distributions over all classes but the labelled one.

        T² · Σ_{c ≠ t} p̂_c · (log p̂_c − log q̂_c),  p̂_c = p_c / (1 − p_t),  q̂_c = q_c / (1 − q_t)

    with p the teacher's and q the student's softened distribution, and t the target. It is NCKD of the paper, and 0
    for two classes.

    Shapes: … positions, any number of axes; C classes, at least 2.

    Args:
        student_logits: `(…, C)`, any float dtype.
        teacher_logits: `(…, C)`, any float dtype.
        targets: `(…)`, int64, the class of each position; below 0 where there is none.
        temperature: T > 0, dividing both logits.
        mask: bool `(…)`, True where a position counts. None counts all that have a target.

    Returns:
        `(…)`, float32 or float64, nats times T² per position.

    Raises:
        ConfigurationError: as `target_class_kl`.

    References:
        Zhao, Cui, Song, Qiu, Liang: Decoupled Knowledge Distillation, 2022, https://arxiv.org/abs/2203.08679,
        section 3.

    Example:

        >>> import torch
        >>> student, teacher = torch.tensor([9.0, 2.0, 0.0]).log1p(), torch.tensor([0.0, 0.0, 0.0]).log1p()
        >>> non_target_class_kl(student, teacher, torch.tensor(0))  # ½ log(½ / ¾) + ½ log(½ / ¼)
        tensor(0.1438)
    """
    mask = _counted(student_logits, teacher_logits, targets, temperature, mask)
    is_target = _is_target(student_logits, targets)
    others = (logits.masked_fill(is_target, -torch.inf) for logits in (student_logits, teacher_logits))
    return forward_kl(*others, temperature=temperature, mask=mask)


def _is_target(logits: Tensor, targets: Tensor) -> Tensor:
    """Bool `(…, C)`."""
    return torch.arange(logits.shape[-1], device=logits.device) == targets[..., None]


def _target_or_other(logits: Tensor, targets: Tensor) -> Tensor:
    """`(…, 2)`: logits of which the softmax is (probability of the target, probability of all others)."""
    target = logits.gather(-1, targets[..., None])
    others = logits.masked_fill(_is_target(logits, targets), -torch.inf).logsumexp(dim=-1, keepdim=True)
    return torch.cat((target, others), dim=-1)


def _counted(
    student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, temperature: float, mask: Tensor | None
) -> Tensor:
    """Bool `(…)`: the positions that count and have a target."""
    check_logits(student_logits, teacher_logits, temperature, mask)
    if targets.dtype != torch.int64 or targets.shape != student_logits.shape[:-1]:
        raise ConfigurationError(
            f"targets are {targets.dtype} of shape {tuple(targets.shape)}, and there are logits at the positions "
            f"{tuple(student_logits.shape[:-1])}. Pass the index of a class (int64) for each position, −100 for none."
        )
    return targets >= 0 if mask is None else mask & (targets >= 0)

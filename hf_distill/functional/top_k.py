"""Distances from a teacher of which only the k likeliest classes of each position are known."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hf_distill.errors import ConfigurationError
from hf_distill.functional.divergences import check_logits, forward_kl
from hf_distill.functional.masking import keep_counted
from hf_distill.functional.precision import computation_dtype
from hf_distill.types import TAIL_EXPONENTS, TopKLogits


_STEEPEST, _NUM_HALVINGS = 1e6, 60
"""The interval in which the power of a power law is looked for, and how often it is halved."""


def top_k_logits(logits: Tensor, k: int) -> TopKLogits:
    """The k likeliest classes of each position, and how much all others weigh together.

    Shapes: … positions, any number of axes; C classes.

    Args:
        logits: `(…, C)`, any float dtype, computed in float32 (float64 if it is).
        k: at least 1; all classes, where it is more than there are.

    Returns:
        Log-probabilities at temperature 1, in nats, of the k, and of all others together.

    Raises:
        ConfigurationError: if `k` is below 1.

    Example:

        >>> kept = top_k_logits(torch.tensor([0.1, 0.6, 0.3]).log(), k=2)
        >>> kept.indices, kept.values.exp(), kept.tail[0].exp()
        (tensor([1, 2]), tensor([0.6000, 0.3000]), tensor(0.1000))
    """
    check_number(k)
    log_p = torch.log_softmax(logits.to(computation_dtype(logits)), dim=-1)
    num_classes = log_p.shape[-1]
    values, indices = log_p.topk(min(k, num_classes), dim=-1)
    others = log_p.scatter(-1, indices, -torch.inf)
    tail = torch.stack([_log_sum(others, exponent)[0] for exponent in TAIL_EXPONENTS], dim=-1)
    return TopKLogits(values, indices, tail, num_classes - values.shape[-1], num_classes)


def check_number(k: int) -> None:
    """Refuses to keep no class.

    Raises:
        ConfigurationError: if `k` is below 1.
    """
    if k < 1:
        raise ConfigurationError(f"k must be at least 1, got {k}: with no class there is nothing to compare.")


def top_k_of_known(log_probabilities: Tensor, classes: Tensor, k: int, num_classes: int) -> TopKLogits:
    """The k likeliest classes of each position, where only some classes are known, the k likeliest among them.

    What all others weigh together is then known at temperature 1 alone: it is what the k leave of 1. At other
    temperatures it is taken to be what a power law weighs that begins at the last of the k and has this sum:

        p_r = p_k · (r / k)^−a  for the ranks r = k + 1 … C,   Σ_r p_r = 1 − Σ_i≤k p_i

    with sums taken for integrals. a = 0 is the most that others can weigh when softened, none being likelier than the
    last of the k.

    Shapes: … positions, any number of axes; n ≥ k classes known; C classes.

    Args:
        log_probabilities: `(…, n)`, at temperature 1; −∞ where there is no class.
        classes: `(…, n)`, int64: which they are.
        k: how many are kept.
        num_classes: C.

    Returns:
        As [`top_k_logits`], float32.

    Example:

        >>> known = torch.tensor([0.25, 0.50]).log(), torch.tensor([2, 0])
        >>> kept = top_k_of_known(*known, k=2, num_classes=4)
        >>> kept.indices, kept.tail[0].exp()
        (tensor([0, 2]), tensor(0.2500))
    """
    log_p, order = log_probabilities.double().topk(k, dim=-1)
    tail = _power_law_tail(log_p, num_classes - k).float()
    return TopKLogits(log_p.float(), classes.gather(-1, order), tail, num_classes - k, num_classes)


def on_top_k(divergence: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A divergence that also takes [`types.TopKLogits`] for the teacher.

    It is then the divergence between distributions over k + 1 classes: the k that the teacher finds likeliest, and
    "another one", at which each model has the sum of its probabilities of all other classes, softened like the rest:

        D(p_1 … p_k, Σ_others p_c ; q_1 … q_k, Σ_others q_c),  p = softmax(teacher / T),  q = softmax(student / T)

    For `forward_kl` this is the divergence itself, were the teacher's other classes as likely in relation to each
    other as the student's. So it is no larger, 0 at equality, not biased towards the k as a renormalised softmax is,
    and the gradient is 0 where the k and the sum of the others are right. With k = C nothing is left out. How the
    others lie among themselves is not taught, which matters as much as they weigh: keep more classes where a teacher
    is unsure, or T is above 1.

    What the teacher's others weigh is known at T = 1, 2 and 4; between, log Σ p_c^(1/T) is the polynomial in 1 / T
    through these points and T = ∞, where it is the logarithm of their number.

    Args:
        divergence: any of `hf_distill.functional` with the signature of `forward_kl`.

    Returns:
        A function of the same signature. Tensors of logits are passed on as they are.

    Raises:
        ConfigurationError: from that function, as from `forward_kl`, or if T is below 1, where it is not known how
            much the others weigh. Of classes that were drawn ([`drawn_logits`]): if T is not the one they were
            drawn at, or the divergence is not `forward_kl`.

    References:
        Anshumann et al.: Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs, 2025,
        https://arxiv.org/abs/2503.16870, on the bias of a softmax that is renormalised over the k.

    Example:

        >>> from hf_distill.functional import forward_kl
        >>> teacher = top_k_logits(torch.tensor([0.50, 0.25, 0.25]).log(), k=1)
        >>> on_top_k(forward_kl)(torch.tensor([0.25, 0.25, 0.50]).log(), teacher)  # ½ log(½ / ¼) + ½ log(½ / ¾)
        tensor(0.1438)
    """

    def compared(
        student_logits: Tensor, teacher_logits: Any, *, temperature: float = 1.0, mask: Tensor | None = None
    ) -> Tensor:
        if isinstance(teacher_logits, TopKLogits):
            _check_drawn(teacher_logits, divergence)
            student_logits, teacher_logits = coarsened(student_logits, teacher_logits, temperature, mask)
        masked = {} if mask is None else {"mask": mask}  # a divergence of a user's own may take none
        return divergence(student_logits, teacher_logits, temperature=temperature, **masked)

    return compared


def coarsened(
    student_logits: Tensor, teacher_logits: TopKLogits, temperature: float, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Logits of both over the teacher's k classes and "another one".

    Shapes: … positions, any number of axes; C classes.

    Args:
        student_logits: `(…, C)`.
        teacher_logits: of the same positions and classes.
        temperature: T ≥ 1, by which the result is to be divided.
        mask: bool `(…)`, True where a position counts.

    Returns:
        Two tensors `(…, k + 1)`, `(…, k)` if there is no other class.

    Raises:
        ConfigurationError: as the functions of [`on_top_k`].
    """
    if student_logits.shape != teacher_logits.shape:
        raise ConfigurationError(
            f"student_logits have shape {tuple(student_logits.shape)} and teacher_logits, of which "
            f"{teacher_logits.values.shape[-1]} classes are known, {tuple(teacher_logits.shape)}. Pass logits of one "
            "shape, classes on the last axis."
        )
    check_logits(student_logits, student_logits, temperature, mask)
    _check_known(teacher_logits, temperature)
    dtype = computation_dtype(student_logits, teacher_logits.values)
    student = keep_counted(student_logits.to(dtype), mask)
    values = teacher_logits.values.to(dtype)
    own = student.gather(-1, teacher_logits.indices).masked_fill(values.isneginf(), -torch.inf)
    if teacher_logits.num_others == 0:
        return own, values
    others, is_absent = _log_sum(student.scatter(-1, teacher_logits.indices, -torch.inf), 1 / temperature)
    theirs = _tail_at(1 / temperature, teacher_logits).to(dtype).masked_fill(is_absent, -torch.inf)
    return (
        torch.cat((own, temperature * others[..., None]), dim=-1),
        torch.cat((values, temperature * theirs[..., None]), dim=-1),
    )


def softened_top_k(teacher_logits: TopKLogits, temperature: float) -> tuple[Tensor, Tensor]:
    """The log-probabilities of the k at a temperature, `(…, k)`, and of all others together, `(…,)`.

    Raises:
        ConfigurationError: if T is below 1, where it is not known how much the others weigh.
    """
    _check_known(teacher_logits, temperature)
    values = teacher_logits.values.to(computation_dtype(teacher_logits.values)) / temperature
    others = values.new_full(values.shape[:-1], -torch.inf)
    if teacher_logits.num_others:
        others = _tail_at(1 / temperature, teacher_logits).to(values.dtype)
    mass = torch.logsumexp(torch.cat((values, others[..., None]), dim=-1), dim=-1)
    return values - mass[..., None], others - mass


def _check_drawn(teacher_logits: TopKLogits, divergence: Callable[..., Tensor]) -> None:
    if teacher_logits.drawn_at is not None and divergence is not forward_kl:
        raise ConfigurationError(
            f"the divergence is {getattr(divergence, '__name__', divergence)!r}, and a teacher's classes that were "
            "drawn are right on average for `forward_kl` alone. Use that, or cache the likeliest classes with "
            "`drawn_at=None`."
        )


def _check_known(teacher_logits: TopKLogits, temperature: float) -> None:
    drawn_at = teacher_logits.drawn_at
    if drawn_at is not None and temperature != drawn_at:
        raise ConfigurationError(
            f"temperature is {temperature!r}, and a teacher's {teacher_logits.values.shape[-1]} classes that were "
            f"drawn are right on average at {drawn_at} alone. Pass that temperature, or draw anew with "
            f"`cache_teacher(…, drawn_at={temperature})`."
        )
    if drawn_at is None and not temperature >= 1:
        raise ConfigurationError(
            f"temperature is {temperature!r}, and of a teacher's {teacher_logits.values.shape[-1]} likeliest classes "
            "alone it is not known how much the others weigh below 1. Pass a temperature of 1 or more, or cache all "
            "classes with `top_k=None`."
        )


def _log_sum(logits: Tensor, exponent: float) -> tuple[Tensor, Tensor]:
    """log Σ exp(exponent · z) over the last axis, and whether no class is left; −∞ there, with a gradient of 0."""
    is_absent = logits.isneginf().all(dim=-1)
    present = logits.masked_fill(is_absent[..., None], 0.0)
    return torch.logsumexp(exponent * present, dim=-1).masked_fill(is_absent, -torch.inf), is_absent


def _tail_at(exponent: float, teacher_logits: TopKLogits) -> Tensor:
    """log Σ p_c^exponent over the other classes, `(…)`."""
    if exponent in TAIL_EXPONENTS:
        return teacher_logits.tail[..., TAIL_EXPONENTS.index(exponent)]
    nodes = (0.0, *TAIL_EXPONENTS)
    # Lagrange's polynomials: each is 1 at its own node and 0 at the others
    of_even, *shares = (
        math.prod((exponent - other) / (node - other) for other in nodes if other != node) for node in nodes
    )
    tail = teacher_logits.tail
    between = of_even * math.log(teacher_logits.num_others) + (tail * tail.new_tensor(shares)).sum(-1)
    return between.where(tail[..., 0] > -torch.inf, -torch.inf)


def _power_law_tail(log_p: Tensor, num_others: int) -> Tensor:
    """log Σ p_r^β over others that follow the k of `log_p`, `(…, k)`, by a power law, `(…, 3)`."""
    k, last = log_p.shape[-1], log_p[..., -1]
    if num_others == 0:
        return log_p.new_full((*last.shape, len(TAIL_EXPONENTS)), -torch.inf)
    rounding = last.exp().clamp(max=torch.finfo(torch.float32).eps)  # below it, 1 − Σ p says nothing
    log_rest = (1 - log_p.exp().sum(-1)).maximum(rounding).log().minimum(last + math.log(num_others))
    start, width = math.log((k + 0.5) / k), math.log((num_others + k + 0.5) / (k + 0.5))

    def log_ranks(power: Tensor) -> Tensor:
        """log Σ_r (r / k)^−power, the sum as an integral."""
        slope = 1 - power
        size = slope.abs().clamp(min=1e-9)
        return math.log(k) + slope * start + (slope * width).clamp(min=0) + (-torch.expm1(-size * width) / size).log()

    low, high = torch.zeros_like(last), torch.full_like(last, _STEEPEST)
    for _ in range(_NUM_HALVINGS):
        middle = (low + high) / 2
        is_flat = last + log_ranks(middle) > log_rest
        low, high = middle.where(is_flat, low), high.where(is_flat, middle)
    softened = [log_rest if beta == 1 else beta * last + log_ranks(beta * low) for beta in TAIL_EXPONENTS]
    return torch.stack(softened, dim=-1)

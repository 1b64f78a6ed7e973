"""Soft and hard targets of a large vocabulary, without ever holding the logits of all positions.

A head of V classes makes V scores of H numbers. For a vocabulary these are most of the memory of a step, and the
gradient with respect to them is known in closed form. So positions are taken a chunk at a time: logits of student and
teacher, value and gradient of that chunk, and the gradient of hidden states and head, which is all that is kept.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from hf_distill.errors import ConfigurationError
from hf_distill.functional.divergences import forward_kl, reverse_kl
from hf_distill.functional.precision import computation_dtype, without_autocast
from hf_distill.functional.top_k import softened_top_k
from hf_distill.types import IGNORED_LABEL, TopKLogits


class LinearLogits(NamedTuple):
    """Logits that nobody has built yet: hidden states, and the linear head that makes them.

        softcap · tanh(x / softcap),  x = scale · (hidden_states @ weightᵀ + bias)

    Shapes: N positions, H hidden, V vocabulary.
    """

    hidden_states: Tensor
    """`(N, H)`."""
    weight: Tensor
    """`(V, H)`; may be the embedding of the tokens too, whose gradients then add up."""
    bias: Tensor | None = None
    """`(V,)`."""
    scale: float = 1.0
    """What the model multiplies logits by: `logit_scale` in Cohere, 1 / `logits_scaling` in Granite."""
    softcap: float | None = None
    """`final_logit_softcapping` in Gemma. None leaves logits as they are."""


class _TopKTargets(NamedTuple):
    """[`types.TopKLogits`] at the temperature that student and teacher are compared at."""

    indices: Tensor
    log_probabilities: Tensor
    log_tail: Tensor


class _Balance(NamedTuple):
    """What a chunk is compared by, the same for all chunks."""

    temperature: float
    reverses: bool
    soft_weight: Tensor
    hard_weight: Tensor
    num_classes: int | None
    """How many classes, the first of both, the divergence is over; None for all."""


class ChunkedLoss(NamedTuple):
    """Sums over positions, each 0-d, float32 or float64."""

    total: Tensor
    """soft_weight · soft + hard_weight · hard, with the graph to the student."""
    soft: Tensor
    """T² times the divergence from the teacher, without graph."""
    hard: Tensor
    """The cross-entropy with the labels, without graph; 0 without labels."""


def chunked_distillation_loss(
    student_logits: LinearLogits,
    teacher_logits: LinearLogits | TopKLogits | Tensor,
    labels: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    num_classes: int | None = None,
    temperature: float = 1.0,
    divergence: Callable[..., Tensor] = forward_kl,
    soft_weight: float | Tensor = 1.0,
    hard_weight: float | Tensor = 1.0,
    chunk_size: int = 128,
    compiled: bool = False,
) -> ChunkedLoss:
    """The divergence from a teacher and the cross-entropy with labels, summed over positions, a chunk at a time.

        soft_weight · Σ_n T² · KL(softmax(t_n / T) ‖ softmax(s_n / T))  −  hard_weight · Σ_n log softmax(s_n)[label_n]

    with s and t the logits of student and teacher. It is what `forward_kl` (or `reverse_kl`) and cross-entropy give
    on whole logits. The gradient of the student's hidden states, weight and bias is computed on the way, so logits
    are computed once, and only those of `chunk_size` positions are held. No gradient reaches the teacher.

    Of a teacher's top k, what is not among the k is one class, as [`on_top_k`] makes it: KL over k + 1 classes, T²
    times it. With k = V that is the dense value.

    Matrix products are in the dtype of the student's hidden states, or in that of autocast where it is on; all else,
    and the sums that the gradients are, in float32 (float64 if either side is). A logit of minus infinity counts as
    the smallest number there is, so that a class which neither model has contributes nothing.

    Shapes: N positions; V vocabulary. Positions that do not count are better picked first (`hidden_states[mask]`)
    where nothing has to wait for their number; `mask` computes them and leaves them out.

    Args:
        student_logits: N positions.
        teacher_logits: the same, with a width and head of its own; or `(N, V)`, any float dtype; or of those the k
            likeliest.
        labels: int64 `(N,)`, −100 where there is none. None leaves the cross-entropy out.
        mask: bool `(N,)`, True where a position counts. None counts all. Elsewhere value and gradient are exactly 0.
        num_classes: how many classes, the first of both, the divergence is over, where one of the two has further
            ones; a top k holds none of these. The cross-entropy is over all that the student has.
        temperature: T > 0, of a top k at least 1.
        divergence: `forward_kl` or `reverse_kl`; the latter not of a top k.
        soft_weight, hard_weight: numbers, or 0-d tensors such as weight / count.
        chunk_size: positions at a time. More take memory, fewer read the gradient of the weight more often.
        compiled: whether what is no matrix product is compiled, which takes half a minute at the first call. Of a top
            k it never is.

    Returns:
        Three sums over positions, 0-d, nats (times T² of the divergence).

    Raises:
        ConfigurationError: if shapes or dtypes do not fit each other, the temperature is not a positive finite
            number, the divergence is another one, or a chunk has no position.

    Example:

        >>> weight = torch.eye(2)
        >>> student = LinearLogits(torch.tensor([[1.0986, 0.0]]), weight)  # probabilities ¾ and ¼
        >>> loss = chunked_distillation_loss(student, torch.zeros(1, 2), torch.tensor([1]))
        >>> loss.soft, loss.hard  # as `forward_kl`, and −log ¼
        (tensor(0.1438), tensor(1.3863))
    """
    if num_classes is not None:
        teacher_logits = _first_classes(teacher_logits, num_classes)
    _check(student_logits, teacher_logits, labels, mask, num_classes, temperature, divergence, chunk_size)
    if mask is not None:
        student_logits = _at_counted(student_logits, mask)
        teacher_logits = (
            _at_counted(teacher_logits, mask) if isinstance(teacher_logits, LinearLogits) else teacher_logits
        )
        labels = None if labels is None else labels.masked_fill(~mask, IGNORED_LABEL)
    hidden_states, weight, bias = student_logits[:3]
    given = soft_weight, 0.0 if labels is None else hard_weight
    weights = [each if isinstance(each, Tensor) else hidden_states.new_full((), each) for each in given]
    teacher: LinearLogits | _TopKTargets | Tensor
    if isinstance(teacher_logits, TopKLogits):
        teacher = _TopKTargets(teacher_logits.indices, *softened_top_k(teacher_logits, temperature))
    else:
        teacher = teacher_logits if isinstance(teacher_logits, Tensor) else _as_multiplied(teacher_logits)
    work = _Work(
        student_logits=_as_multiplied(student_logits),
        teacher_logits=teacher,
        labels=labels,
        mask=mask,
        balance=_Balance(temperature, divergence is reverse_kl, weights[0], weights[1], num_classes),
        chunk_size=chunk_size,
        kernel=_compiled_kernel() if compiled and not isinstance(teacher, _TopKTargets) else _kernel,
        has_gradient=torch.is_grad_enabled(),
    )
    return ChunkedLoss(*_ChunkedLoss.apply(hidden_states, weight, bias, work))  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class _Work:
    """What is to be computed, free of graphs; both sides' logits in the dtype that they are multiplied in."""

    student_logits: LinearLogits
    teacher_logits: LinearLogits | _TopKTargets | Tensor
    labels: Tensor | None
    mask: Tensor | None
    balance: _Balance
    chunk_size: int
    kernel: Callable[..., tuple[Tensor, Tensor]]
    has_gradient: bool

    @property
    def dtype(self) -> torch.dtype:
        """What all but the products is computed in."""
        teacher = self.teacher_logits
        given = teacher if isinstance(teacher, Tensor) else teacher[1]  # the weight, or the log-probabilities
        return computation_dtype(self.student_logits.weight, given)

    def of_chunk(self, chunk: slice) -> tuple[Tensor, Tensor]:
        """The sums over a chunk of positions, `(2,)`, and the gradient by the student's logits there."""
        student, teacher, temperature = self.student_logits, self.teacher_logits, self.balance.temperature
        scores: Tensor | _TopKTargets
        if isinstance(teacher, Tensor):
            scores = _without_infinity(teacher[chunk].to(self.dtype) / temperature)
        elif isinstance(teacher, _TopKTargets):
            scores = _TopKTargets(*(each[chunk] for each in teacher))
        else:
            scores = self._softened(teacher, chunk)
        softened = self._softened(student, chunk)
        slope = None
        if student.softcap is not None:
            slope = 1 - (softened * (temperature / student.softcap)).square_()
        values, gradient = self.kernel(
            softened,
            scores,
            None if self.labels is None else self.labels[chunk],
            None if self.mask is None else self.mask[chunk],
            self.balance,
        )
        return values, gradient if slope is None else gradient.mul_(slope)

    def _softened(self, source: LinearLogits, chunk: slice) -> Tensor:
        """Logits over T. T divides the hidden states, which are fewer, where no soft-cap comes between."""
        temperature = self.balance.temperature
        factor = source.scale / (temperature if source.softcap is None else source.softcap)
        logits = ((source.hidden_states[chunk] * factor) @ source.weight.t()).to(self.dtype)
        if source.bias is not None:
            logits.add_(source.bias.to(self.dtype), alpha=factor)
        if source.softcap is not None:
            logits.tanh_().mul_(source.softcap / temperature)
        return logits if source.bias is None else _without_infinity(logits)


class _ChunkedLoss(torch.autograd.Function):
    """Values and gradients in one pass; the backward pass only multiplies."""

    @staticmethod
    def forward(
        ctx: Any, hidden_states: Tensor, weight: Tensor, bias: Tensor | None, work: _Work
    ) -> tuple[Tensor, ...]:
        student = work.student_logits
        sums = torch.zeros(2, dtype=work.dtype, device=weight.device)
        needs = (work.has_gradient and is_needed for is_needed in ctx.needs_input_grad)
        gradients = [
            torch.zeros_like(tensor, dtype=work.dtype) if is_needed and tensor is not None else None
            for tensor, is_needed in zip((hidden_states, weight, bias), needs, strict=False)
        ]
        of_hidden, of_weight, of_bias = gradients
        with without_autocast(weight):
            for start in range(0, len(hidden_states), work.chunk_size):
                chunk = slice(start, start + work.chunk_size)
                values, gradient = work.of_chunk(chunk)
                sums += values
                if of_bias is not None:
                    of_bias += gradient.sum(0)
                gradient = gradient.to(student.weight.dtype)
                if of_hidden is not None:
                    of_hidden[chunk] = gradient @ student.weight
                if of_weight is not None:
                    _add_product(of_weight, gradient.t(), student.hidden_states[chunk])
        ctx.gradients, ctx.scale = gradients, student.scale
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (hidden_states, weight, bias)]
        soft, hard = sums[0].clone(), sums[1].clone()
        ctx.mark_non_differentiable(soft, hard)
        return (work.balance.soft_weight * soft + work.balance.hard_weight * hard).to(work.dtype), soft, hard

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_total: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        found = zip(ctx.gradients, ctx.dtypes, strict=True)
        return *(None if each is None else (each * (of_total * ctx.scale)).to(dtype) for each, dtype in found), None


def _kernel(
    student: Tensor,
    teacher: Tensor | _TopKTargets,
    labels: Tensor | None,
    mask: Tensor | None,
    balance: _Balance,
) -> tuple[Tensor, Tensor]:
    """Both sums, `(2,)`, and the weighted gradient by the student's logits before they are softened, `(n, V)`.

    Softened logits `(n, V)` are overwritten, of the student and of the teacher: a chunk should be in few places at
    once, and be read from memory as seldom as can be.
    """
    temperature, reverses, soft_weight, hard_weight, num_classes = balance
    student.sub_(student.amax(dim=-1, keepdim=True))
    hard, hard_gradient = student.new_zeros(()), None
    if labels is not None:
        hard, hard_gradient = _hard_part(student, labels, temperature, hard_weight)
    shared = student
    if num_classes is not None:
        shared = student[:, :num_classes]
        shared.sub_(shared.amax(dim=-1, keepdim=True))
    if isinstance(teacher, _TopKTargets):
        values, gradient = _top_k_part(shared, teacher)
    else:
        teacher.sub_(teacher.amax(dim=-1, keepdim=True))
        values, gradient = (_reverse_kl_part if reverses else _forward_kl_part)(shared, teacher)
    gradient.mul_((soft_weight * temperature).to(gradient.dtype))
    if mask is not None:
        values = values.masked_fill(~mask[:, None], 0.0)
        gradient.masked_fill_(~mask[:, None], 0.0)
    if num_classes is not None:  # the gradient has taken the place of the logits
        student[:, num_classes:] = 0.0
        gradient = student
    if hard_gradient is not None:
        gradient.add_(hard_gradient)
    return torch.stack((temperature**2 * values.sum(), hard)), gradient


@cache
def _compiled_kernel() -> Callable[..., tuple[Tensor, Tensor]]:
    return torch.compile(_fusible_kernel)


def _fusible_kernel(
    student: Tensor, teacher: Tensor, labels: Tensor | None, mask: Tensor | None, balance: _Balance
) -> tuple[Tensor, Tensor]:
    """`_kernel` of whole logits written for the compiler: nothing in place and no scatter, so that all of it becomes
    three passes over the logits and none over anything else."""
    temperature, reverses, soft_weight, hard_weight, num_classes = balance
    shared, teacher = (each - each.amax(dim=-1, keepdim=True) for each in (student[:, :num_classes], teacher))
    student_exp, teacher_exp = shared.exp(), teacher.exp()
    student_mass, teacher_mass = (each.sum(dim=-1, keepdim=True) for each in (student_exp, teacher_exp))
    if reverses:
        log_ratio, exponentials, mass, other_mass = shared - teacher, student_exp, student_mass, teacher_mass
    else:
        log_ratio, exponentials, mass, other_mass = teacher - shared, teacher_exp, teacher_mass, student_mass
    mean = (exponentials * log_ratio).sum(dim=-1, keepdim=True) / mass
    soft = mean - mass.log() + other_mass.log()
    share = (soft_weight * temperature).to(student.dtype)
    if reverses:
        gradient = student_exp * (share / student_mass) * (log_ratio - mean)
    else:
        gradient = student_exp * (share / student_mass) - teacher_exp * (share / teacher_mass)
    if mask is not None:
        soft, gradient = (torch.where(mask[:, None], each, 0.0) for each in (soft, gradient))
    if num_classes is not None:
        gradient = pad(gradient, (0, student.shape[-1] - num_classes))
    soft = temperature**2 * soft.sum()
    if labels is None:
        return torch.stack((soft, soft.new_zeros(()))), gradient
    student = student - student.amax(dim=-1, keepdim=True)
    counted, target = (labels != IGNORED_LABEL)[:, None], labels.clamp(min=0)[:, None]
    hard_exp = (temperature * student).exp()
    hard_mass = hard_exp.sum(dim=-1, keepdim=True)
    hard = hard_mass.log() - temperature * student.gather(1, target)
    share = (counted * hard_weight).to(student.dtype)
    is_target = torch.arange(student.shape[-1], device=student.device) == target
    gradient = gradient + hard_exp * (share / hard_mass) - torch.where(is_target, share, 0.0)
    return torch.stack((soft, hard.masked_fill(~counted, 0.0).sum())), gradient


def _hard_part(student: Tensor, labels: Tensor, temperature: float, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The cross-entropy, and its weighted gradient in memory of its own."""
    counted = (labels != IGNORED_LABEL)[:, None]
    target = labels.clamp(min=0)[:, None]
    gradient = torch.mul(student, temperature).exp_()
    mass = gradient.sum(dim=-1, keepdim=True)
    values = mass.log() - temperature * student.gather(1, target)
    share = (counted * weight).to(student.dtype)
    gradient.mul_(share / mass).scatter_add_(1, target, -share)
    return values.masked_fill(~counted, 0.0).sum(), gradient


def _forward_kl_part(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """KL(p ‖ q) of each position, and its gradient q − p."""
    log_ratio = teacher - student
    teacher_mass, student_mass = (each.exp_().sum(dim=-1, keepdim=True) for each in (teacher, student))
    mean = log_ratio.mul_(teacher).sum(dim=-1, keepdim=True) / teacher_mass
    return mean - teacher_mass.log() + student_mass.log(), student.div_(student_mass).sub_(teacher.div_(teacher_mass))


def _reverse_kl_part(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """KL(q ‖ p) of each position, and its gradient q · (log q − log p − KL)."""
    log_ratio = student - teacher
    teacher_mass, student_mass = (each.exp_().sum(dim=-1, keepdim=True) for each in (teacher, student))
    mean = (student * log_ratio).sum(dim=-1, keepdim=True) / student_mass
    return mean + teacher_mass.log() - student_mass.log(), student.div_(student_mass).mul_(log_ratio.sub_(mean))


def _top_k_part(student: Tensor, teacher: _TopKTargets) -> tuple[Tensor, Tensor]:
    """KL over k + 1 classes, and its gradient: q − p of the k, and q · (1 − p / q of the tail) of each other class."""
    indices, log_p, log_tail = teacher.indices, *(each.to(student.dtype) for each in teacher[1:])
    log_tail = log_tail[:, None]
    log_q = student.gather(1, indices)
    gradient = student.exp_()
    mass = gradient.sum(dim=-1, keepdim=True)
    gradient.div_(mass)
    log_q = log_q - mass.log()
    tail = gradient.scatter_(1, indices, 0.0).sum(dim=-1, keepdim=True)
    has_tail = torch.isfinite(log_tail)
    log_ratio = torch.where(has_tail, log_tail - tail.log(), 0.0)
    is_none = torch.isneginf(log_p)  # no class, whose index repeats another's
    difference = (log_q.exp() - log_p.exp()).masked_fill(is_none, 0.0)
    gradient.mul_(1 - torch.where(has_tail, log_ratio.exp(), 0.0)).scatter_add_(1, indices, difference)
    known = (log_p.exp() * (log_p - log_q).masked_fill(is_none, 0.0)).sum(dim=-1, keepdim=True)
    return known + log_tail.exp() * log_ratio, gradient


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add a product of matrices in `total`'s own, finer dtype."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _without_infinity(logits: Tensor) -> Tensor:
    """Logits whose differences are numbers, and far enough from the end that they are."""
    return logits.clamp_(min=torch.finfo(logits.dtype).min / 4)


def _first_classes(logits: LinearLogits | TopKLogits | Tensor, count: int) -> LinearLogits | TopKLogits | Tensor:
    """Of a top k, which holds no others, the number alone."""
    if isinstance(logits, LinearLogits):
        return logits._replace(weight=logits.weight[:count], bias=None if logits.bias is None else logits.bias[:count])
    return replace(logits, num_classes=count) if isinstance(logits, TopKLogits) else logits[:, :count]


def _at_counted(logits: LinearLogits, mask: Tensor) -> LinearLogits:
    """Whatever stands elsewhere would reach the weight's gradient, since 0 times NaN is NaN."""
    return logits._replace(hidden_states=logits.hidden_states.masked_fill(~mask[:, None], 0.0))


def _as_multiplied(logits: LinearLogits) -> LinearLogits:
    """Without graph, in the dtype of autocast where it is on, else in that of the weight."""
    device = logits.weight.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else logits.weight.dtype
    hidden_states, weight = (tensor.detach().to(dtype) for tensor in logits[:2])
    bias = None if logits.bias is None else logits.bias.detach()
    return logits._replace(hidden_states=hidden_states, weight=weight, bias=bias)


def _check(
    student: LinearLogits,
    teacher: LinearLogits | TopKLogits | Tensor,
    labels: Tensor | None,
    mask: Tensor | None,
    num_classes: int | None,
    temperature: float,
    divergence: Callable[..., Tensor],
    chunk_size: int,
) -> None:
    faults = _faults_of_shapes(student, teacher, num_classes)
    num_positions = len(student.hidden_states)
    if mask is not None and (mask.dtype != torch.bool or mask.shape != (num_positions,)):
        faults.append(
            f"mask is {mask.dtype} of shape {tuple(mask.shape)}. Pass a bool mask of shape ({num_positions},)."
        )
    if labels is not None and (labels.dtype != torch.int64 or labels.shape != (num_positions,)):
        faults.append(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}. Pass int64 labels of shape "
            f"({num_positions},), {IGNORED_LABEL} where a position has none."
        )
    allowed = [forward_kl] if isinstance(teacher, TopKLogits) else [forward_kl, reverse_kl]
    if divergence not in allowed:
        names = " or ".join(f"`{each.__name__}`" for each in allowed)
        faults.append(f"divergence must be {names}, got {divergence!r}. Build the logits for another one.")
    if not 0 < temperature < math.inf:
        faults.append(f"temperature must be a finite number above 0, got {temperature!r}.")
    if chunk_size < 1:
        faults.append(f"chunk_size must be at least 1, got {chunk_size}.")
    if faults:
        raise ConfigurationError(" ".join(faults))


def _faults_of_shapes(
    student: LinearLogits, teacher: LinearLogits | TopKLogits | Tensor, num_classes: int | None
) -> list[str]:
    faults = []
    for side, source in {"student": student, "teacher": teacher}.items():
        if isinstance(source, LinearLogits):
            shapes = [None if each is None else tuple(each.shape) for each in source[:3]]
            width = source.weight.shape[-1:]
            if (
                [len(each.shape) for each in source[:2]] != [2, 2]
                or source[0].shape[-1:] != width
                or (source.bias is not None and source.bias.shape != source.weight.shape[:1])
            ):
                faults.append(
                    f"the {side} has hidden_states of shape {shapes[0]}, a weight of shape {shapes[1]} and a bias of "
                    f"shape {shapes[2]}. Pass (N, H), (V, H) and (V,)."
                )
    own_classes = student.weight.shape[0]
    if num_classes is not None and not 0 < num_classes <= own_classes:
        faults.append(f"num_classes is {num_classes}, and the student has {own_classes} classes. Pass at most these.")
    ours = len(student.hidden_states), own_classes if num_classes is None else num_classes
    theirs: tuple[int, ...] = (
        (len(teacher.hidden_states), len(teacher.weight))
        if isinstance(teacher, LinearLogits)
        else tuple(teacher.shape)
    )
    if ours != theirs:
        faults.append(
            f"the student has logits of shape {ours} and the teacher {theirs}. Pass the same positions "
            "and classes of both."
        )
    return faults

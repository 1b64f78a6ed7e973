"""How the tokens of a text relate to each other inside a layer: the knowledge of MiniLM and MiniLMv2.

The contract is that of `features`, with `token_mask` as in `attention_maps`.
"""

import math
from collections.abc import Iterator
from functools import partial
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hf_distill.errors import ConfigurationError
from hf_distill.functional.divergences import forward_kl
from hf_distill.functional.masking import check_mask, keep_counted
from hf_distill.functional.precision import computation_dtype, without_autocast


MAX_SCORES = 2**24
"""How many scores are held at once, of student and teacher each: 64 MiB in float32."""
MAX_SCORES_IN_CACHE = 2**18
"""The same on a CPU, where memory is what the passes over the scores wait for: one MiB."""
MAX_KEPT_SCORES = 2**23
"""Up to how many scores there is a gradient to keep: 32 MiB in float32."""


def self_attention_relation(
    student_vectors: Tensor,
    teacher_vectors: Tensor,
    *,
    num_relation_heads: int,
    token_mask: Tensor | None = None,
    student_keys: Tensor | None = None,
    teacher_keys: Tensor | None = None,
) -> Tensor:
    """The Kullback-Leibler divergence between the relations of one layer's queries (or keys, or values).

        KL(R_i^teacher ‖ R_i^student),  R_i = softmax_j(a_i · a_j / √d),  j over the real tokens

    The vectors of a token's heads are joined and split again into `num_relation_heads` parts a_i of width d. So the
    models may differ in their heads and widths, and nothing needs to be projected.

    MiniLMv2 takes the mean of this over queries, keys and values, each related with themselves, of a chosen layer.
    MiniLM is the sum of two: the values of the last layer related with themselves, and its queries related with its
    keys, R_i = softmax_j(q_i · k_j / √d), which with as many relation heads as the models have heads is their
    attention. Rotary positions, biases of positions and causal masks come after queries and keys, and are not in it.

    The scores of all pairs of tokens are made for some relation heads at a time, so that the memory does not grow with
    their number. The gradient by the student's scores, R^student − R^teacher, is kept for the backward pass where it
    is small, and computed again otherwise.

    Shapes: B batch, H heads, L tokens, A relation heads. H and the width of a head are each model's own.

    Args:
        student_vectors: `(B, H, L, D)`, any float dtype.
        teacher_vectors: `(B, H, L, D)`, any float dtype.
        num_relation_heads: A, which divides H · D of both. MiniLMv2 takes 48 for teachers of width 768 and 64 for
            1024.
        token_mask: bool `(B, L)`, True at real tokens. None says that all are.
        student_keys: `(B, H, L, D)`, what `student_vectors` are related with. None relates them with themselves.
        teacher_keys: `(B, H, L, D)`, likewise, given if `student_keys` are.

    Returns:
        `(B, A, L)`, float32 or float64, nats for each token of each relation head.

    Raises:
        ConfigurationError: if the vectors do not fit each other, cannot be split into `num_relation_heads`, or the
            mask is not a bool for each token.

    References:
        Wang et al.: MiniLMv2: Multi-Head Self-Attention Relation Distillation for Compressing Pretrained
        Transformers, 2021, https://arxiv.org/abs/2012.15828, its multi-head self-attention relations.
        Wang et al.: MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained
        Transformers, 2020, https://arxiv.org/abs/2002.10957, the losses L_AT and L_VR.

    Example:

        >>> import torch
        >>> student, teacher = torch.randn(2, 4, 5, 8), torch.randn(2, 12, 5, 64)
        >>> self_attention_relation(student, teacher, num_relation_heads=16).shape
        torch.Size([2, 16, 5])
    """
    given = {
        "student_vectors": student_vectors,
        "student_keys": student_keys,
        "teacher_vectors": teacher_vectors,
        "teacher_keys": teacher_keys,
    }
    vectors = {name: tensor for name, tensor in given.items() if tensor is not None}
    _check(vectors, num_relation_heads, token_mask)
    dtype = computation_dtype(*vectors.values())
    heads = {name: _relation_heads(tensor.to(dtype), num_relation_heads) for name, tensor in vectors.items()}
    ours, theirs = heads["student_vectors"], heads["teacher_vectors"]
    operands = ours, heads.get("student_keys", ours), theirs, heads.get("teacher_keys", theirs)
    batch, _, length, _ = student_vectors.shape
    mask = None if token_mask is None else token_mask.repeat_interleave(num_relation_heads, dim=0)
    max_scores = MAX_SCORES_IN_CACHE if ours.device.type == "cpu" else MAX_SCORES
    heads_at_once = max(1, max_scores // max(1, length**2))
    if any(tensor.requires_grad for tensor in operands[2:]):
        learn_both = partial(checkpoint, _relation_kl, use_reentrant=False, preserve_rng_state=False)
        real = [keep_counted(tensor, mask) for tensor in operands]
        values = torch.cat([learn_both(*chunk) for chunk in _chunks(heads_at_once, *real, mask)])
    else:
        learn_student: Any = _StudentRelationKL.apply
        values = learn_student(*operands, mask, heads_at_once, len(ours) * length**2 <= MAX_KEPT_SCORES)
    return values.view(batch, num_relation_heads, length)


def _relation_heads(vectors: Tensor, num_relation_heads: int) -> Tensor:
    """`(B · A, L, d)`: the vectors of all heads joined and split anew."""
    split: Tensor = vectors.transpose(1, 2).flatten(2).unflatten(2, (num_relation_heads, -1))
    return split.transpose(1, 2).flatten(0, 1)


def _chunks(size: int, *tensors: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Some relation heads of every tensor at a time."""
    parts: list[Any] = [repeat(None) if tensor is None else tensor.split(size) for tensor in tensors]
    return zip(*parts, strict=False)  # a mask that is None has no end


class _StudentRelationKL(torch.autograd.Function):
    """`_relation_kl` with its gradient by hand, for a teacher that learns nothing: ∂KL_i / ∂score_ij = q_ij − p_ij."""

    @staticmethod
    def forward(ctx: Any, *operands: Any) -> Tensor:
        *tensors, mask, heads_at_once, keeps = operands
        if mask is not None:
            tensors = [_zero_at_padding(tensor, mask) for tensor in tensors]
        values, kept = [], []
        for chunk in _chunks(heads_at_once, *tensors, mask):
            value, difference = _kl_and_difference(*chunk)
            values.append(value)
            kept += [difference] * keeps
        ctx.heads_at_once = heads_at_once
        ctx.save_for_backward(*tensors, mask, *kept)
        return keep_counted(torch.cat(values), mask)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        *operands, mask = ctx.saved_tensors[:5]
        kept = ctx.saved_tensors[5:]
        student, student_keys = operands[:2]
        weights = keep_counted(gradients[0], mask)[..., None] / math.sqrt(student.shape[-1])
        weighed = weights * student
        by_vectors, by_keys = torch.empty_like(student), torch.empty_like(weighed)
        parts = _chunks(ctx.heads_at_once, *operands, mask, student_keys, weighed, by_vectors, by_keys)
        with without_autocast(student):
            for index, (*chunk, k, v, by_v, by_k) in enumerate(parts):
                difference = kept[index] if kept else _kl_and_difference(*chunk)[1]
                by_v.baddbmm_(difference, k, beta=0)
                by_k.baddbmm_(difference.transpose(1, 2), v, beta=0)
        return by_vectors.mul_(weights), by_keys, None, None, None, None, None


def _zero_at_padding(vectors: Tensor, mask: Tensor) -> Tensor:
    """`keep_counted` without a gradient, by the bits: masks of fewer axes are slow to fill by on a CPU."""
    bits = {torch.float32: torch.int32, torch.float64: torch.int64}[vectors.dtype]
    return (vectors.view(bits) & -mask.to(bits)[..., None]).view(vectors.dtype)


def _kl_and_difference(
    student: Tensor, student_keys: Tensor, teacher: Tensor, teacher_keys: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """KL(p ‖ q) = Σ_j p_j (t_j − s_j) + log Σ_j exp(s_j) − log Σ_j exp(t_j) as `(N, L)`, and q − p as `(N, L, L)`.

    Passes over memory are what it costs, and the softmax is a single one. So the logarithm of a sum of exponentials is
    had from it: it is max(s) − log max(q).
    """
    s = _scores(student, student_keys, mask, torch.finfo(student.dtype).min)  # minus infinity has no difference
    t = _scores(teacher, teacher_keys, mask, torch.finfo(student.dtype).min)
    q, p = s.softmax(dim=-1), t.softmax(dim=-1)
    values = s.amax(dim=-1) - t.amax(dim=-1) + (p.amax(dim=-1) / q.amax(dim=-1)).log()
    values += t.sub_(s).mul_(p).sum(dim=-1)
    return values, q.sub_(p)


def _relation_kl(
    student: Tensor, student_keys: Tensor, teacher: Tensor, teacher_keys: Tensor, mask: Tensor | None
) -> Tensor:
    scores = (_scores(*pair, mask, -torch.inf) for pair in ((student, student_keys), (teacher, teacher_keys)))
    return forward_kl(*scores, mask=mask)


def _scores(vectors: Tensor, keys: Tensor, mask: Tensor | None, of_padding: float) -> Tensor:
    """`(N, L, L)`: scaled dot-products."""
    added = vectors.new_zeros(1, 1, 1) if mask is None else vectors.new_zeros(()).where(mask, of_padding)[:, None]
    with without_autocast(vectors):
        return torch.baddbmm(added, vectors, keys.transpose(-1, -2), alpha=1 / math.sqrt(vectors.shape[-1]))


def _check(vectors: dict[str, Tensor], num_relation_heads: int, token_mask: Tensor | None) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in vectors.items()}
    if any(len(shape) != 4 for shape in shapes.values()):
        raise ConfigurationError(
            f"the vectors have the shapes {shapes}. Pass queries, keys or values as (batch, heads, tokens, width)."
        )
    faults = []
    if len({(shape[0], shape[2]) for shape in shapes.values()}) > 1:
        faults.append(f"the vectors are of different batches or tokens: {shapes}.")
    if len(vectors) == 3:
        faults.append("`student_keys` and `teacher_keys` go together. Pass both, or neither.")
    widths = {name: shape[1] * shape[3] for name, shape in shapes.items()}
    for model in ("student", "teacher"):
        own, keys = f"{model}_vectors", f"{model}_keys"
        if widths.get(keys, widths[own]) != widths[own]:
            faults.append(
                f"{own} have {widths[own]} numbers a token and {keys} {widths[keys]}. Repeat the keys for the queries "
                "that share them (`repeat_interleave` on the axis of heads)."
            )
    if num_relation_heads < 1 or any(width % num_relation_heads for width in widths.values()):
        faults.append(f"num_relation_heads={num_relation_heads} must divide the numbers a token has: {widths}.")
    dtypes = {name: tensor.dtype for name, tensor in vectors.items()}
    if not all(dtype.is_floating_point for dtype in dtypes.values()):
        faults.append(f"the vectors must be of a floating-point dtype, got {dtypes}.")
    if faults:
        raise ConfigurationError(" ".join(faults))
    batch, _, length, _ = shapes["student_vectors"]
    check_mask(token_mask, torch.Size((batch, length)))

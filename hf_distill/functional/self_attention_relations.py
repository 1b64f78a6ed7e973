"""How the tokens of a text relate to each other inside a layer: the knowledge of MiniLM and MiniLMv2.

The contract is that of `features`, with `token_mask` as in `attention_maps`.
"""

import math
from functools import partial
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
        Transformers, 2021, https://arxiv.org/abs/2012.15828, equations 5 to 8.
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
    heads = {
        name: _relation_heads(tensor.to(dtype), num_relation_heads, token_mask) for name, tensor in vectors.items()
    }
    ours, theirs = heads["student_vectors"], heads["teacher_vectors"]
    operands = ours, heads.get("student_keys", ours), theirs, heads.get("teacher_keys", theirs)
    batch, _, length, _ = student_vectors.shape
    heads_at_once = max(1, MAX_SCORES // max(1, batch * length**2))
    chunks = list(zip(*(tensor.split(heads_at_once, dim=1) for tensor in operands), strict=True))
    if any(tensor.requires_grad for tensor in operands[2:]):
        learn_both = partial(checkpoint, _relation_kl, use_reentrant=False, preserve_rng_state=False)
        return torch.cat([learn_both(*chunk, token_mask=token_mask) for chunk in chunks], dim=1)
    keeps = batch * num_relation_heads * length**2 <= MAX_KEPT_SCORES
    learn_student: Any = _StudentRelationKL.apply
    return torch.cat([learn_student(*chunk, token_mask, keeps) for chunk in chunks], dim=1)


def _relation_heads(vectors: Tensor, num_relation_heads: int, token_mask: Tensor | None) -> Tensor:
    """`(B, A, L, d)`: the vectors of all heads joined and split anew, 0 at padding."""
    joined = keep_counted(vectors.transpose(1, 2).flatten(2), token_mask)
    return joined.reshape(*joined.shape[:2], num_relation_heads, -1).transpose(1, 2)


class _StudentRelationKL(torch.autograd.Function):
    """`_relation_kl` with its gradient by hand, for a teacher that learns nothing: ∂KL_i / ∂score_ij = q_ij − p_ij."""

    @staticmethod
    def forward(ctx: Any, *operands: Any) -> Tensor:
        student, student_keys, teacher, teacher_keys, token_mask, keeps = operands
        log_q = _log_relations(student, student_keys, token_mask)
        log_p = _log_relations(teacher, teacher_keys, token_mask)
        p = log_p.exp()
        values = (log_p.sub_(log_q).masked_fill_(p == 0, 0.0) * p).sum(dim=-1)
        kept = (log_q.exp_().sub_(p),) if keeps else (teacher, teacher_keys)
        ctx.keeps = keeps
        ctx.save_for_backward(student, student_keys, token_mask, *kept)
        return keep_counted(values, _rows(values, token_mask))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        student, student_keys, token_mask, *kept = ctx.saved_tensors
        if ctx.keeps:
            (difference,) = kept
        else:
            difference = _log_relations(student, student_keys, token_mask).exp_()
            difference -= _log_relations(kept[0], kept[1], token_mask).exp_()
        (gradient,) = gradients
        rows = _rows(gradient, token_mask)
        by_score = keep_counted(difference, rows) * (gradient / math.sqrt(student.shape[-1]))[..., None]
        with without_autocast(student):
            return by_score @ student_keys, by_score.transpose(-1, -2) @ student, None, None, None, None


def _rows(values: Tensor, token_mask: Tensor | None) -> Tensor | None:
    """Bool `(B, A, L)`: the tokens that are no padding, for each relation head."""
    return None if token_mask is None else token_mask[:, None].expand(values.shape)


def _log_relations(vectors: Tensor, keys: Tensor, token_mask: Tensor | None) -> Tensor:
    """`(B, A, L, L)`: log R."""
    return torch.log_softmax(_scores(vectors, keys, token_mask), dim=-1)


def _relation_kl(
    student: Tensor, student_keys: Tensor, teacher: Tensor, teacher_keys: Tensor, token_mask: Tensor | None
) -> Tensor:
    scores = _scores(student, student_keys, token_mask), _scores(teacher, teacher_keys, token_mask)
    return forward_kl(*scores, mask=None if token_mask is None else token_mask[:, None].expand(scores[0].shape[:-1]))


def _scores(vectors: Tensor, keys: Tensor, token_mask: Tensor | None) -> Tensor:
    """`(B, A, L, L)`: scaled dot-products, minus infinity with padding."""
    with without_autocast(vectors):
        scores: Tensor = vectors / math.sqrt(vectors.shape[-1]) @ keys.transpose(-1, -2)
    return scores if token_mask is None else scores.masked_fill_(~token_mask[:, None, None], -torch.inf)


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

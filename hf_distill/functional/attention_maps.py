"""How far a student's attention maps are from a teacher's, one value for each row of each head.

The contract is that of `features`. `token_mask` says which tokens are real: padding is left out of the rows, which
are the tokens that attend, and of the columns, which are the tokens that they attend to. So further padding changes
nothing.
"""

import torch
from torch import Tensor

from hf_distill.errors import ConfigurationError
from hf_distill.functional.divergences import logit_mse
from hf_distill.functional.masking import check_mask
from hf_distill.functional.precision import computation_dtype


def attention_mse(student_scores: Tensor, teacher_scores: Tensor, *, token_mask: Tensor | None = None) -> Tensor:
    """The mean squared difference of attention scores before the softmax, over the real tokens.

        1 / n · Σ_j (student_ij − teacher_ij)²,  j over the n real tokens

    Scores that are minus infinity in both, as those of a causal mask, are left out of the sum and of n.

    Shapes: B batch, A heads, L tokens.

    Args:
        student_scores: `(B, A, L, L)`, any float dtype, as many heads as the teacher.
        teacher_scores: `(B, A, L, L)`, any float dtype.
        token_mask: bool `(B, L)`, True at real tokens. None says that all are.

    Returns:
        `(B, A, L)`, float32 or float64, the squared unit of the scores.

    Raises:
        ConfigurationError: if the shapes differ, the scores are no floats, or the mask is not a bool for each token.

    References:
        Jiao et al.: TinyBERT: Distilling BERT for Natural Language Understanding, 2020,
        https://arxiv.org/abs/1909.10351, the loss L_attn.

    Example:

        >>> import torch
        >>> student, teacher = torch.tensor([[1.0, 9.0], [9.0, 9.0]]), torch.zeros(2, 2)
        >>> attention_mse(student[None, None], teacher[None, None], token_mask=torch.tensor([[True, False]]))
        tensor([[[1., 0.]]])
    """
    _check(student_scores, teacher_scores, token_mask)
    if token_mask is None:
        return logit_mse(student_scores, teacher_scores)
    padding = ~token_mask[:, None, None, :]
    return logit_mse(
        student_scores.masked_fill(padding, -torch.inf),
        teacher_scores.masked_fill(padding, -torch.inf),
        mask=token_mask[:, None, :].expand(student_scores.shape[:-1]),
    )


def attention_kl(
    student_probabilities: Tensor, teacher_probabilities: Tensor, *, token_mask: Tensor | None = None
) -> Tensor:
    """The Kullback-Leibler divergence of attention probabilities from student to teacher.

        Σ_j p_ij · (log p_ij − log q_ij),  p the teacher's and q the student's attention, j over the real tokens

    Where the student gives a token exactly no attention and the teacher gives it some, the value is plus infinity.
    **Dropout of attention probabilities does that**: in train mode Transformers returns them after the dropout, so
    set the student's `attention_probs_dropout_prob` (or `attention_dropout`) to 0. `self_attention_relation` of
    queries and keys gives the same value for models without rotary positions, and needs neither that nor the slow
    attention.

    Shapes: B batch, A heads, L tokens.

    Args:
        student_probabilities: `(B, A, L, L)`, any float dtype, as many heads as the teacher.
        teacher_probabilities: `(B, A, L, L)`, any float dtype.
        token_mask: bool `(B, L)`, True at real tokens. None says that all are.

    Returns:
        `(B, A, L)`, float32 or float64, nats.

    Raises:
        ConfigurationError: as `attention_mse`.

    References:
        Wang et al.: MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained
        Transformers, 2020, https://arxiv.org/abs/2002.10957, the loss L_AT.

    Example:

        >>> import torch
        >>> teacher, student = torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([[0.75, 0.25], [1.0, 0.0]])
        >>> attention_kl(student[None, None], teacher[None, None])  # ½ log(4 / 3)
        tensor([[[0.1438, 0.0000]]])
    """
    _check(student_probabilities, teacher_probabilities, token_mask)
    dtype = computation_dtype(student_probabilities, teacher_probabilities)
    q, p = student_probabilities.to(dtype), teacher_probabilities.to(dtype)
    absent = p == 0
    if token_mask is not None:
        absent = absent | ~(token_mask[:, None, :, None] & token_mask[:, None, None, :])
    p, q = p.masked_fill(absent, 1.0), q.masked_fill(absent, 1.0)
    return (p * (p.log() - q.log())).sum(dim=-1)


def _check(student: Tensor, teacher: Tensor, token_mask: Tensor | None) -> None:
    faults = []
    if student.shape != teacher.shape or student.ndim != 4 or student.shape[-1] != student.shape[-2]:
        faults.append(
            f"the student's attention has shape {tuple(student.shape)} and the teacher's {tuple(teacher.shape)}. Pass "
            "maps (batch, heads, tokens, tokens) of one shape; models with different heads are compared by "
            "`self_attention_relation`."
        )
    if not (student.is_floating_point() and teacher.is_floating_point()):
        faults.append(
            f"the student's attention is {student.dtype} and the teacher's {teacher.dtype}. Pass maps of a "
            "floating-point dtype."
        )
    if faults:
        raise ConfigurationError(" ".join(faults))
    check_mask(token_mask, student.shape[:1] + student.shape[-1:])

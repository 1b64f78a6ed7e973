"""How far a student's scores of a list of candidates are from a teacher's: passages for a query, texts for an image.

The contract is that of `divergences`, but that `mask` says which **candidates** exist, so that lists of different
lengths can be padded. Scores may come from a cross-encoder or be products of embeddings.
"""

import torch
from torch import Tensor

from hf_distill.functional.divergences import check_logits, forward_kl
from hf_distill.functional.masking import check_mask, keep_counted
from hf_distill.functional.precision import computation_dtype


def listwise_kl(
    student_scores: Tensor, teacher_scores: Tensor, *, temperature: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """The Kullback-Leibler divergence between the probabilities that a candidate is the best of its list.

        T² · Σ_k p_k · (log p_k − log q_k),  p = softmax(teacher / T),  q = softmax(student / T),  over the list

    A constant added to all scores of a list changes nothing.

    Shapes: … lists, any number of axes; K candidates.

    Args:
        student_scores: `(…, K)`, any float dtype.
        teacher_scores: `(…, K)`, any float dtype.
        temperature: T > 0, dividing both scores.
        mask: bool `(…, K)`, True where there is a candidate. None says everywhere.

    Returns:
        `(…)`, float32 or float64, nats times T² per list; 0 for a list of fewer than two candidates.

    Raises:
        ConfigurationError: as `forward_kl`, or if the mask is not a bool for each candidate.

    References:
        Cao, Qin, Liu, Tsai, Li: Learning to Rank: From Pairwise Approach to Listwise Approach, 2007,
        https://www.microsoft.com/en-us/research/publication/learning-to-rank-from-pairwise-approach-to-listwise-approach,
        section 4.3 (there the cross-entropy, which is more by the teacher's entropy).

    Example:

        >>> import torch
        >>> query, passages = torch.tensor([1.0, 0.0]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
        >>> teacher = torch.tensor([2.0, 2.0, 0.0])
        >>> listwise_kl(passages @ query, teacher, mask=torch.tensor([True, True, False]))
        tensor(0.1201)
    """
    check_logits(student_scores, teacher_scores, temperature, name="scores")
    check_mask(mask, student_scores.shape)
    if mask is None:
        return forward_kl(student_scores, teacher_scores, temperature=temperature)
    scores = (scores.masked_fill(~mask, -torch.inf) for scores in (student_scores, teacher_scores))
    return forward_kl(*scores, temperature=temperature, mask=mask.any(dim=-1))


def margin_mse(student_scores: Tensor, teacher_scores: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """The squared difference between the margins by which the first candidate is better than each other one.

        ((student_0 − student_k) − (teacher_0 − teacher_k))²,  k = 1, …, K − 1

    The first candidate is the relevant one. A constant added to all scores of a list changes nothing, but scores on
    another scale do.

    Shapes: … lists, any number of axes; K candidates.

    Args:
        student_scores: `(…, K)`, any float dtype.
        teacher_scores: `(…, K)`, any float dtype.
        mask: bool `(…, K)`, True where there is a candidate. None says everywhere.

    Returns:
        `(…, K − 1)`, float32 or float64, the squared unit of the scores, for each pair.

    Raises:
        ConfigurationError: as `listwise_kl`.

    References:
        Hofstätter, Althammer, Schröder, Sertkan, Hanbury: Improving Efficient Neural Ranking Models with
        Cross-Architecture Knowledge Distillation, 2020, https://arxiv.org/abs/2010.02666, section 3.

    Example:

        >>> import torch
        >>> margin_mse(torch.tensor([5.0, 4.0, 0.0]), torch.tensor([2.0, 0.0, 1.0]))  # margins 1, 5 and 2, 1
        tensor([ 1., 16.])
    """
    check_logits(student_scores, teacher_scores, temperature=1.0, name="scores")
    check_mask(mask, student_scores.shape)
    dtype = computation_dtype(student_scores, teacher_scores)
    difference = keep_counted(student_scores.to(dtype) - teacher_scores.to(dtype), mask)
    pairs = None if mask is None else mask[..., :1] & mask[..., 1:]
    return keep_counted(difference[..., :1] - difference[..., 1:], pairs).square()

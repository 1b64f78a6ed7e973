"""How well a student's vector of a row tells the teacher's vector of that row from those of other rows."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hf_distill.errors import ConfigurationError
from hf_distill.functional.masking import keep_counted
from hf_distill.functional.operands import counted_features
from hf_distill.functional.precision import without_autocast


def info_nce(
    student_features: Tensor, teacher_features: Tensor, *, mask: Tensor | None = None, temperature: float = 0.07
) -> Tensor:
    """The negative log-likelihood of finding a row's partner among all rows, once from either side.

        −log softmax_j(s_i · t_j / τ)_i − log softmax_j(t_i · s_j / τ)_i,  s and t divided by their lengths

    This is contrastive representation distillation with the other rows **of the same micro-batch** as negatives, in
    place of the paper's memory bank of the whole data set, which would go stale on resuming and be each process's
    own. Minimising it maximises a lower bound of the mutual information of the two vectors, log N − ½ · value, so the
    micro-batch should be large, and it depends on how a batch is split. It is **not 0 at equality**.

    The paper projects both models' features, the teacher's too.

    Shapes: N rows; D features.

    Args:
        student_features: `(N, D)`, any float dtype.
        teacher_features: `(N, D)`, any float dtype.
        mask: bool `(N,)`, True where a row counts. None counts all.
        temperature: τ > 0.

    Returns:
        `(N,)`, float32 or float64, nats; 0 for a single row.

    Raises:
        ConfigurationError: if the shapes differ, the features are no floats, the temperature is not above 0, or the
            mask is not a bool for each row.

    References:
        Tian, Krishnan, Isola: Contrastive Representation Distillation, 2020, https://arxiv.org/abs/1910.10699,
        section 3.
        van den Oord, Li, Vinyals: Representation Learning with Contrastive Predictive Coding, 2018,
        https://arxiv.org/abs/1807.03748, the InfoNCE loss.

    Example:

        >>> import torch
        >>> info_nce(torch.eye(2), torch.eye(2), temperature=1.0)  # 2 log(1 + exp(−1))
        tensor([0.6265, 0.6265])
    """
    if not temperature > 0:
        raise ConfigurationError(f"temperature must be above 0, got {temperature!r}. 0.07 to 0.1 are usual.")
    student, teacher = counted_features(student_features, teacher_features, mask, num_axes=2)
    with without_autocast(student):
        scores = normalize(student, dim=-1) @ normalize(teacher, dim=-1).T / temperature
    values = -(_log_likelihood(scores, mask) + _log_likelihood(scores.T, mask))
    return keep_counted(values, mask)


def _log_likelihood(scores: Tensor, mask: Tensor | None) -> Tensor:
    """`(N,)`: the log-probability of the diagonal, among the columns that count."""
    if mask is not None:  # a column that does not count is left to its own row, which must choose from something
        others = ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(others & ~mask, -torch.inf)
    return torch.log_softmax(scores, dim=-1).diagonal()

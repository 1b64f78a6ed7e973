"""How the rows of a batch relate to each other, one value for each row.

The contract is that of `features`. A row is compared by its relations with the other rows **of the same micro-batch**,
so these values, and their gradients, depend on how a batch is split into micro-batches and over processes; none of
them can be invariant to it. Student and teacher may differ in width. A row that is excluded is related with nothing.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize, smooth_l1_loss

from hf_distill.errors import ConfigurationError
from hf_distill.functional.divergences import forward_kl
from hf_distill.functional.masking import keep_counted
from hf_distill.functional.operands import counted_features
from hf_distill.functional.precision import without_autocast


def rkd_distance(student_features: Tensor, teacher_features: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """The Huber distance between the relative distances of the rows.

        1 / (n − 1) · Σ_{j ≠ i} huber(ψ_ij^teacher − ψ_ij^student),  ψ_ij = ‖f_i − f_j‖ / μ,  μ the mean over all pairs

    Shapes: N rows; D features, each model's own.

    Args:
        student_features: `(N, D)`, any float dtype.
        teacher_features: `(N, D)`, any float dtype.
        mask: bool `(N,)`, True where a row counts. None counts all.

    Returns:
        `(N,)`, float32 or float64, without unit; 0 for a single row.

    Raises:
        ConfigurationError: if the features are not of the same rows, are no floats, or the mask is not a bool for
            each row.

    References:
        Park, Kim, Lu, Cho: Relational Knowledge Distillation, 2019, https://arxiv.org/abs/1904.05068, the loss
        L_RKD-D (there summed over the pairs).

    Example:

        >>> import torch
        >>> teacher = torch.tensor([[0.0], [1.0], [3.0]])
        >>> rkd_distance(10 * teacher, teacher)
        tensor([0., 0., 0.])
    """
    student, teacher = _rows(student_features, teacher_features, mask)
    pairs = _pairs(student, mask)
    return _mean(_huber(_relative_distances(student, pairs), _relative_distances(teacher, pairs)), pairs, dim=-1)


def rkd_angle(student_features: Tensor, teacher_features: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """The Huber distance between the angles that the other rows make, as seen from each row.

        1 / ((n − 1)(n − 2)) · Σ_{i ≠ k} huber(cos ∠ t_i t_j t_k − cos ∠ s_i s_j s_k),  for row j; i, k ≠ j

    It holds N³ angles.

    Shapes: N rows; D features, each model's own.

    Args:
        student_features: `(N, D)`, any float dtype.
        teacher_features: `(N, D)`, any float dtype.
        mask: bool `(N,)`, True where a row counts. None counts all.

    Returns:
        `(N,)`, float32 or float64, without unit; 0 for fewer than three rows.

    Raises:
        ConfigurationError: as `rkd_distance`.

    References:
        Park, Kim, Lu, Cho: Relational Knowledge Distillation, 2019, https://arxiv.org/abs/1904.05068, the loss
        L_RKD-A (there summed over the triplets).

    Example:

        >>> import torch
        >>> teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> student = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
        >>> rkd_angle(student, teacher)  # 90° and 45° at row 0, 45° and 90° at row 1, 45° at row 2
        tensor([0.2500, 0.2500, 0.0000])
    """
    student, teacher = _rows(student_features, teacher_features, mask)
    pairs = _pairs(student, mask)
    triplets = pairs[:, :, None] & pairs[:, None, :] & pairs
    return _mean(_huber(_angles(student), _angles(teacher)), triplets, dim=(-2, -1))


def similarity_preserving(student_features: Tensor, teacher_features: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """The mean squared difference of the rows' similarities with all rows.

        1 / n · Σ_j (G_ij^teacher − G_ij^student)²,  G_i = (f_i · f_1, …, f_i · f_n) / ‖(f_i · f_1, …, f_i · f_n)‖

    Shapes: N rows; D features, each model's own.

    Args:
        student_features: `(N, D)`, any float dtype.
        teacher_features: `(N, D)`, any float dtype.
        mask: bool `(N,)`, True where a row counts. None counts all.

    Returns:
        `(N,)`, float32 or float64, without unit.

    Raises:
        ConfigurationError: as `rkd_distance`.

    References:
        Tung, Mori: Similarity-Preserving Knowledge Distillation, 2019, https://arxiv.org/abs/1907.09682, the loss
        L_SP.

    Example:

        >>> import torch
        >>> teacher, student = torch.eye(2), torch.ones(2, 1)
        >>> similarity_preserving(student, teacher)  # G = (1, 0) and (√½, √½): ½ · ((1 − √½)² + ½)
        tensor([0.2929, 0.2929])
    """
    student, teacher = _rows(student_features, teacher_features, mask)
    difference = normalize(_dot_products(teacher), dim=-1) - normalize(_dot_products(student), dim=-1)
    return difference.square().sum(dim=-1) / _num_rows(student, mask)


def correlation_congruence(
    student_features: Tensor, teacher_features: Tensor, *, mask: Tensor | None = None, gamma: float = 0.4
) -> Tensor:
    """The mean squared difference of the rows' correlations with all rows, by a Gaussian kernel.

        1 / n · Σ_j (C_ij^teacher − C_ij^student)²,  C_ij = exp(−γ ‖f_i / ‖f_i‖ − f_j / ‖f_j‖‖²)

    Shapes: N rows; D features, each model's own.

    Args:
        student_features: `(N, D)`, any float dtype.
        teacher_features: `(N, D)`, any float dtype.
        mask: bool `(N,)`, True where a row counts. None counts all.
        gamma: γ > 0. Larger values tell near rows apart, and far ones less.

    Returns:
        `(N,)`, float32 or float64, without unit.

    Raises:
        ConfigurationError: as `rkd_distance`, or if `gamma` is not above 0.

    References:
        Peng et al.: Correlation Congruence for Knowledge Distillation, 2019, https://arxiv.org/abs/1904.01802, the
        loss L_CC with the Gaussian kernel (there expanded to the second order; here it is exact).

    Example:

        >>> import torch
        >>> teacher, student = torch.eye(2), torch.ones(2, 1)
        >>> correlation_congruence(student, teacher, gamma=0.5)  # ½ · (1 − exp(−1))²
        tensor([0.1998, 0.1998])
    """
    if not gamma > 0:
        raise ConfigurationError(f"gamma must be above 0, got {gamma!r}. 0.4 is the default.")
    student, teacher = _rows(student_features, teacher_features, mask)
    # A row that does not count is 0, so it has one value in both and no difference.
    kernels = (torch.exp(2 * gamma * (_cosines(features) - 1)) for features in (student, teacher))
    return torch.sub(*kernels).square().sum(dim=-1) / _num_rows(student, mask)


def pkt(student_features: Tensor, teacher_features: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """The Kullback-Leibler divergence between the rows' probabilities of choosing each other row as a neighbour.

        Σ_{j ≠ i} p_ij · (log p_ij − log q_ij),  p_ij = K_ij / Σ_{k ≠ i} K_ik,  K_ij = (1 + cos(f_i, f_j)) / 2

    with p the teacher's and q the student's. This is probabilistic knowledge transfer.

    Shapes: N rows; D features, each model's own.

    Args:
        student_features: `(N, D)`, any float dtype.
        teacher_features: `(N, D)`, any float dtype.
        mask: bool `(N,)`, True where a row counts. None counts all.

    Returns:
        `(N,)`, float32 or float64, nats; 0 for fewer than three rows.

    Raises:
        ConfigurationError: as `rkd_distance`.

    References:
        Passalis, Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer, 2018,
        https://arxiv.org/abs/1803.10837, with the cosine kernel (the authors' code lets each row choose itself, too).

    Example:

        >>> import torch
        >>> teacher = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> pkt(torch.ones(3, 1), teacher)  # row 0: p = (⅔, ⅓) and q = (½, ½)
        tensor([0.0566, 0.0566, 0.0000])
    """
    student, teacher = _rows(student_features, teacher_features, mask)
    pairs = _pairs(student, mask)
    smallest = torch.finfo(student.dtype).eps  # in place of log 0, where two rows are opposite
    log_kernels = (((1 + _cosines(features)) / 2).clamp(min=smallest).log() for features in (student, teacher))
    return forward_kl(*(scores.masked_fill(~pairs, -torch.inf) for scores in log_kernels), mask=pairs.any(dim=-1))


def _rows(student_features: Tensor, teacher_features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    return counted_features(student_features, teacher_features, mask, num_axes=2, widths_may_differ=True)


def _num_rows(features: Tensor, mask: Tensor | None) -> Tensor | int:
    return max(1, len(features)) if mask is None else mask.sum().clamp(min=1)


def _pairs(features: Tensor, mask: Tensor | None) -> Tensor:
    """Bool `(N, N)`: pairs of two different rows that count."""
    pairs = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
    return pairs if mask is None else pairs & mask[:, None] & mask


def _huber(student: Tensor, teacher: Tensor) -> Tensor:
    return smooth_l1_loss(student, teacher, reduction="none")


def _mean(values: Tensor, counted: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """The mean over what counts, 0 where nothing does."""
    return keep_counted(values, counted).sum(dim=dim) / counted.sum(dim=dim).clamp(min=1)


def _relative_distances(features: Tensor, pairs: Tensor) -> Tensor:
    """`(N, N)`: Euclidean distances of pairs, divided by their mean; 0 elsewhere, which no mean makes infinite."""
    distances = keep_counted(torch.linalg.vector_norm(features[:, None] - features, dim=-1), pairs)
    mean = _mean(distances, pairs, dim=(0, 1)).clamp(min=torch.finfo(distances.dtype).tiny)
    return torch.div(distances, mean)


def _angles(features: Tensor) -> Tensor:
    """`(N, N, N)`: at `[j, i, k]`, the cosine of the angle at j between the directions to i and k."""
    directions = normalize(features - features[:, None], dim=-1)
    with without_autocast(directions):
        return directions @ directions.transpose(-1, -2)


def _cosines(features: Tensor) -> Tensor:
    return _dot_products(normalize(features, dim=-1))


def _dot_products(features: Tensor) -> Tensor:
    """`(N, N)`."""
    with without_autocast(features):
        products: Tensor = features @ features.T
    return products

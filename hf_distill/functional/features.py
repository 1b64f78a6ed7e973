"""How far a student's vectors are from a teacher's, one value for each position.

All functions of feature knowledge share one contract.

- They are pure, and reduce over nothing but what one unit consists of: a caller sums or averages over units.
- Inside they compute in float32, or in float64 if either input is float64, under autocast too.
- What `mask` excludes gives exactly 0 and an exactly zero gradient, even if NaN stands there.
- Features have one width. Where the models differ in it, the student's are projected first.
- Gradients reach whatever requires them. Nothing is detached here.
- They never wait for the device, and they compile without a graph break.
"""

import torch
from torch import Tensor

from hf_distill.functional.masking import keep_counted
from hf_distill.functional.operands import counted_features


def hidden_mse(student_features: Tensor, teacher_features: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """The mean squared difference of two vectors.

        1 / D · Σ_d (student_d − teacher_d)²

    Shapes: … positions, any number of axes; D features.

    Args:
        student_features: `(…, D)`, any float dtype.
        teacher_features: `(…, D)`, any float dtype.
        mask: bool `(…)`, True where a position counts. None counts all.

    Returns:
        `(…)`, float32 or float64, the squared unit of the features.

    Raises:
        ConfigurationError: if the shapes differ, the features are no floats, or the mask is not a bool for each
            position.

    References:
        Romero et al.: FitNets: Hints for Thin Deep Nets, 2015, https://arxiv.org/abs/1412.6550, the loss
        L_HT (there a sum over the features, and halved).
        Jiao et al.: TinyBERT: Distilling BERT for Natural Language Understanding, 2020,
        https://arxiv.org/abs/1909.10351, the losses L_hidn and L_embd.

    Example:

        >>> import torch
        >>> hidden_mse(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 5.0]))
        tensor(4.5000)
    """
    student, teacher = counted_features(student_features, teacher_features, mask)
    return (student - teacher).square().mean(dim=-1)


def normalized_squared_distance(
    student_features: Tensor, teacher_features: Tensor, *, mask: Tensor | None = None
) -> Tensor:
    """The squared distance of two vectors that are first divided by their lengths.

        Σ_d (student_d / ‖student‖ − teacher_d / ‖teacher‖)²

    It lies in [0, 4] whatever the width, and is twice the `cosine_distance`. A vector of zeros stays one.

    Shapes: … positions, any number of axes; D features.

    Args:
        student_features: `(…, D)`, any float dtype.
        teacher_features: `(…, D)`, any float dtype.
        mask: bool `(…)`, True where a position counts. None counts all.

    Returns:
        `(…)`, float32 or float64, without unit.

    Raises:
        ConfigurationError: as `hidden_mse`.

    References:
        Sun, Cheng, Gan, Liu: Patient Knowledge Distillation for BERT Model Compression, 2019,
        https://arxiv.org/abs/1908.09355, the loss L_PT (the authors' code takes the mean over D in place of the sum).

    Example:

        >>> import torch
        >>> normalized_squared_distance(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 5.0]))
        tensor(2.)
    """
    student, teacher = counted_features(student_features, teacher_features, mask)
    normalize = torch.nn.functional.normalize
    return (normalize(student, dim=-1) - normalize(teacher, dim=-1)).square().sum(dim=-1)


def cosine_distance(student_features: Tensor, teacher_features: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """One minus the cosine of the angle between two vectors.

        1 − cos(student, teacher) = ½ · Σ_d (student_d / ‖student‖ − teacher_d / ‖teacher‖)²

    It is computed by the right side, which loses no digits near agreement. A vector of zeros, which has no direction,
    is at distance ½ from any other.

    Shapes: … positions, any number of axes; D features.

    Args:
        student_features: `(…, D)`, any float dtype.
        teacher_features: `(…, D)`, any float dtype.
        mask: bool `(…)`, True where a position counts. None counts all.

    Returns:
        `(…)`, float32 or float64, in [0, 2].

    Raises:
        ConfigurationError: as `hidden_mse`.

    References:
        Sanh, Debut, Chaumond, Wolf: DistilBERT, a distilled version of BERT, 2019, https://arxiv.org/abs/1910.01108,
        section 2.

    Example:

        >>> import torch
        >>> cosine_distance(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 5.0]))
        tensor(1.)
    """
    return 0.5 * normalized_squared_distance(student_features, teacher_features, mask=mask)


def gaussian_nll(
    student_features: Tensor,
    teacher_features: Tensor,
    log_variances: Tensor,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """The negative log-likelihood of the teacher's vector under a Gaussian that the student predicts.

        1 / D · Σ_d ½ · (log σ²_d + (teacher_d − student_d)² / σ²_d)

    Minimising it maximises a lower bound of the mutual information of the two layers. The constant ½ log 2π is left
    out. It is **not 0 at equality**, where it is ½ log σ², and may be negative: the variances are learned with the
    student, and a feature that the student cannot predict learns to count little.

    Shapes: … positions, any number of axes; D features.

    Args:
        student_features: `(…, D)`, the means, any float dtype.
        teacher_features: `(…, D)`, any float dtype.
        log_variances: log σ², of a shape that broadcasts to `(…, D)`: `(D,)` for a variance per feature, as in the
            paper.
        mask: bool `(…)`, True where a position counts. None counts all.

    Returns:
        `(…)`, float32 or float64, nats per feature.

    Raises:
        ConfigurationError: as `hidden_mse`.

    References:
        Ahn, Hu, Damianou, Lawrence, Dai: Variational Information Distillation for Knowledge Transfer, 2019,
        https://arxiv.org/abs/1904.05835, section 2 (there a sum over the features; the authors' code takes the mean).

    Example:

        >>> import torch
        >>> gaussian_nll(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]), torch.zeros(2))
        tensor(1.)
    """
    student, teacher = counted_features(student_features, teacher_features, mask)
    log_variances = keep_counted(log_variances.to(student.dtype).expand_as(student), mask)
    return 0.5 * (log_variances + (teacher - student).square() * torch.exp(-log_variances)).mean(dim=-1)

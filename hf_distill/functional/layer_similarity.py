"""How similar two layers are, to find out which layer of a teacher belongs to which of a student."""

import torch
from torch import Tensor

from hf_distill.functional.masking import keep_counted
from hf_distill.functional.operands import counted_features
from hf_distill.functional.precision import without_autocast


def linear_cka(student_features: Tensor, teacher_features: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """The linear centred kernel alignment of two layers, a **similarity**: 1 at equality, 0 for unrelated layers.

        ‖Tᵀ S‖² / (‖Sᵀ S‖ · ‖Tᵀ T‖),  S and T the features less their mean over the positions

    Neither a rotation nor a factor common to all features of a model changes it. It needs more positions than
    features: with fewer it is near 1 for any two layers.

    Shapes: … positions, any number of axes; D features, each model's own.

    Args:
        student_features: `(…, D)`, any float dtype.
        teacher_features: `(…, D)`, any float dtype.
        mask: bool `(…)`, True where a position counts. None counts all.

    Returns:
        0-d, float32 or float64, in [0, 1]; 0 where the features of a model do not vary.

    Raises:
        ConfigurationError: if the features are not of the same positions, are no floats, or the mask is not a bool
            for each position.

    References:
        Kornblith, Norouzi, Lee, Hinton: Similarity of Neural Network Representations Revisited, 2019,
        https://arxiv.org/abs/1905.00414, section 3 and appendix A.

    Example:

        >>> import torch
        >>> teacher = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> linear_cka(-2 * teacher, teacher), linear_cka(teacher[:, :1], teacher)
        (tensor(1.), tensor(0.7071))
    """
    student, teacher = counted_features(student_features, teacher_features, mask, widths_may_differ=True)
    student, teacher = _centred(student, mask), _centred(teacher, mask)
    with without_autocast(student):
        across, within_student, within_teacher = (
            torch.linalg.matrix_norm(one.T @ other)
            for one, other in ((teacher, student), (student, student), (teacher, teacher))
        )
    return torch.div(across**2, (within_student * within_teacher).clamp(min=torch.finfo(student.dtype).tiny))


def _centred(features: Tensor, mask: Tensor | None) -> Tensor:
    """`(N, D)`: the features less their mean over the positions that count, which are 0 elsewhere."""
    features = features.flatten(0, -2) if features.ndim > 1 else features[None]
    if mask is None:
        return features - features.mean(dim=0)
    counted = mask.flatten()
    return keep_counted(features - features.sum(dim=0) / counted.sum().clamp(min=1), counted)

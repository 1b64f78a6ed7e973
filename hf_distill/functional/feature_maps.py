"""How far the feature maps of a student's layer are from a teacher's, one value for each row of the batch.

The contract is that of `features`. A map holds the features of all sites of a row, `(B, S, C)`: the pixels of an
image (`feature_map.flatten(2).transpose(1, 2)` brings `(B, C, height, width)` there) or the tokens of a text.
"""

from torch import Tensor
from torch.nn.functional import normalize

from hf_distill.errors import ConfigurationError
from hf_distill.functional.operands import counted_features
from hf_distill.functional.precision import without_autocast


def fsp_distance(
    student_layers: tuple[Tensor, Tensor], teacher_layers: tuple[Tensor, Tensor], *, mask: Tensor | None = None
) -> Tensor:
    """The squared distance between the flows from one layer to another.

        ‖G^teacher − G^student‖²,  G_cd = 1 / n · Σ_s first_sc · last_sd,  s over the n sites

    G is the matrix of the "flow of solution procedure".

    Shapes: B batch, S sites, C channels, each layer's own but one for student and teacher.

    Args:
        student_layers: an earlier and a later layer, `(B, S, C)` each, any float dtype.
        teacher_layers: likewise.
        mask: bool `(B, S)`, True where a site counts. None counts all.

    Returns:
        `(B,)`, float32 or float64, the fourth power of the features' unit.

    Raises:
        ConfigurationError: if the shapes do not fit, the features are no floats, or the mask is not a bool for each
            site.

    References:
        Yim, Joo, Bae, Kim: A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer
        Learning, 2017, https://openaccess.thecvf.com/content_cvpr_2017/html/Yim_A_Gift_From_CVPR_2017_paper.html,
        the FSP matrix and its loss.

    Example:

        >>> import torch
        >>> ones, zeros = torch.ones(1, 3, 2), torch.zeros(1, 3, 2)
        >>> fsp_distance((ones, ones), (ones, zeros))  # G is a matrix of ones, and one of zeros
        tensor([4.])
    """
    sites = [layer.shape[:-1] for layer in (*student_layers, *teacher_layers)]
    if len(set(sites)) > 1:
        raise ConfigurationError(
            f"the layers have the batches and sites {[tuple(shape) for shape in sites]}, and their features are "
            "multiplied site by site. Pool the larger ones (`adaptive_avg_pool2d`) first."
        )
    firsts, lasts = (
        counted_features(ours, theirs, mask, num_axes=3)
        for ours, theirs in zip(student_layers, teacher_layers, strict=True)
    )
    with without_autocast(firsts[0]):
        student, teacher = (first.transpose(1, 2) @ last for first, last in zip(firsts, lasts, strict=True))
    return ((teacher - student) / _num_sites(student_layers[0], mask)).square().sum(dim=(1, 2))


def neuron_selectivity_mmd(
    student_features: Tensor, teacher_features: Tensor, *, mask: Tensor | None = None
) -> Tensor:
    """The squared maximum mean discrepancy between the channels' patterns over the sites.

        1 / C² Σ_cd k(t_c, t_d) + 1 / C'² Σ_cd k(s_c, s_d) − 2 / (C C') Σ_cd k(t_c, s_d),  k(x, y) = (x · y)²

    where a pattern t_c or s_c is a channel's activations at all sites, divided by their length. It compares what the
    channels look at, not which channel does, so student and teacher may have different numbers of channels.

    The kernel is the paper's polynomial one, of degree 2, for which the sum above is ‖Σ_c t_c t_cᵀ / C −
    Σ_c s_c s_cᵀ / C'‖². That is what is computed, since it loses no digits near agreement: S² numbers a row.

    Shapes: B batch, S sites, C channels, each model's own.

    Args:
        student_features: `(B, S, C)`, any float dtype.
        teacher_features: `(B, S, C)`, any float dtype.
        mask: bool `(B, S)`, True where a site counts. None counts all.

    Returns:
        `(B,)`, float32 or float64, in [0, 2].

    Raises:
        ConfigurationError: as `fsp_distance`.

    References:
        Huang, Wang: Like What You Like: Knowledge Distill via Neuron Selectivity Transfer, 2017,
        https://arxiv.org/abs/1707.01219, the loss L_MMD² with the polynomial kernel.

    Example:

        >>> import torch
        >>> teacher = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
        >>> neuron_selectivity_mmd(teacher.flip(2), teacher), neuron_selectivity_mmd(teacher[..., :1], teacher)
        (tensor([0.]), tensor([0.5000]))
    """
    student, teacher = counted_features(student_features, teacher_features, mask, num_axes=3, widths_may_differ=True)
    return (_selectivity(teacher) - _selectivity(student)).square().sum(dim=(1, 2))


def _selectivity(features: Tensor) -> Tensor:
    """`(B, S, S)`: Σ_c x_c x_cᵀ / C over the normalised patterns x_c of the channels."""
    patterns = normalize(features, dim=1)
    with without_autocast(patterns):
        return patterns @ patterns.transpose(1, 2) / features.shape[-1]


def _num_sites(features: Tensor, mask: Tensor | None) -> Tensor | int:
    return features.shape[1] if mask is None else mask.sum(dim=1)[:, None, None].clamp(min=1)

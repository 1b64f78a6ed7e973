"""Feature knowledge by information: how much of a teacher's layers can be told from the student's."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from hf_distill.functional import gaussian_nll
from hf_distill.functional.precision import computation_dtype
from hf_distill.layer_maps import LayerPair
from hf_distill.terms.feature_terms import Comparison
from hf_distill.terms.projected_states import ProjectedStateTerm
from hf_distill.terms.projection import LearnedValues, Projection
from hf_distill.types import Feature


SMALLEST_VARIANCE = 1e-5
FIRST_VARIANCE = 5.0
"""Both of the implementation of the paper in RepDistiller."""


@dataclass(frozen=True)
class VariationalTerm(ProjectedStateTerm):
    """How badly the student's hidden states predict the teacher's: variational information distillation.

        Σ over tokens of the mean over pairs of layers and features d of ½ · (log σ_d² + (teacher_d − μ_d)² / σ_d²),
        μ = W · student,  σ_d² = log(1 + exp(α_d)) + ε

    W and α are learned, one for each pair of layers. What the student cannot predict comes to count little, as its
    variance grows. The term is **not 0 where student and teacher agree**, and may be negative.

    Unit: token, of images and sounds row. Reads: hidden states of both, of the layers that `layer_map` names. Learns:
    W and α, between equal widths too.

    Args:
        layer_map: as in [`FeatureTerm`].
        side: as in [`FeatureTerm`].

    References:
        Ahn, Hu, Damianou, Lawrence, Dai: Variational Information Distillation for Knowledge Transfer, 2019,
        https://arxiv.org/abs/1904.05835, section 2.

    Example:

        >>> from hf_distill.types import Anatomy, StackShape
        >>> student, teacher = Anatomy("S", {"": StackShape(2, 16)}), Anatomy("T", {"": StackShape(4, 16)})
        >>> list(VariationalTerm("last").bound("vid", student, teacher).learned_parts())
        ['vid_2_4', 'vid_2_4_variance']
    """

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        return tuple(
            Comparison(
                (self._read(pair, self._part(*pair)), self._read(pair, self._part(*pair, "variance"))),
                (Feature("hidden_states", pair.teacher, self.side),),
            )
            for pair in self.layers
        )

    def learned_parts(self) -> Mapping[str, nn.Module]:
        parts: dict[str, nn.Module] = {}
        for pair in self.layers:
            parts[self._part(*pair)] = Projection(*self.widths)
            first = math.log(math.expm1(FIRST_VARIANCE - SMALLEST_VARIANCE))
            parts[self._part(*pair, "variance")] = LearnedValues(torch.full((self.widths[1],), first))
        return parts

    def distances(self, student: list[Tensor], teacher: list[Tensor], real: Tensor | None) -> Tensor:
        means, alphas = student
        variances = softplus(alphas.to(computation_dtype(alphas))) + SMALLEST_VARIANCE
        return gaussian_nll(means, teacher[0], variances.log(), mask=real)

    def _read(self, pair: LayerPair, part: str) -> Feature:
        return Feature("hidden_states", pair.student, self.side, part)

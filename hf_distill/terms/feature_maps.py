"""Feature knowledge by rows: what a layer makes of all tokens (or patches) of a row together."""

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor
from typing_extensions import Self

from hf_distill.errors import ConfigurationError
from hf_distill.functional import fsp_distance, neuron_selectivity_mmd
from hf_distill.layer_maps import LayerMap
from hf_distill.terms.feature_terms import Comparison, FeatureTerm
from hf_distill.terms.projected_states import ProjectedStateTerm
from hf_distill.types import Anatomy, FeatureKind, Unit


@dataclass(frozen=True)
class FlowTerm(ProjectedStateTerm):
    """The distance between the flows from one layer to the next: the flow of solution procedure.

        Σ over rows of the mean over neighbours in `layer_map` of ‖G^teacher − G^student‖²,
        G_cd = 1 / n · Σ_s earlier_sc · later_sd,  s over the n real tokens of the row

    It is a sum over the squared hidden size, and of the fourth power of states, so give it a small weight, or
    `weights="balanced"` to the objective.

    Unit: row. Reads: hidden states of both, of the layers that `layer_map` names, two at least. Learns: a map for each
    of them, where student and teacher differ in width.

    Args:
        layer_map: as in [`FeatureTerm`]. Pairs are compared with the next ones in their order.
        side: as in [`FeatureTerm`].

    Raises:
        ConfigurationError: when it is bound, if there is but one pair of layers.

    References:
        Yim, Joo, Bae, Kim: A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer
        Learning, 2017, https://openaccess.thecvf.com/content_cvpr_2017/html/Yim_A_Gift_From_CVPR_2017_paper.html.

    Example:

        >>> from hf_distill.types import Anatomy, StackShape
        >>> student, teacher = Anatomy("S", {"": StackShape(2, 16)}), Anatomy("T", {"": StackShape(4, 16)})
        >>> flow = FlowTerm([(0, 0), (1, 2), (2, 4)]).bound("flow", student, teacher).comparisons[0]
        >>> [feature.layer for feature in flow.student], [feature.layer for feature in flow.teacher]
        ([0, 1], [0, 2])
    """

    unit = Unit.ROW

    def bound(self, name: str, student: Anatomy, teacher: Anatomy) -> Self:
        bound = super().bound(name, student, teacher)
        if len(bound.layers) < 2:
            raise ConfigurationError(
                f"FlowTerm compares what happens between two layers, and layer_map={self.layer_map!r} has only "
                f"{bound.layers[0]} for the student {student.model} and the teacher {teacher.model}. Name two pairs "
                "at least, such as `layer_map=[(0, 0), (-1, -1)]`."
            )
        return bound

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        states = super().comparisons
        return tuple(
            Comparison(earlier.student + later.student, earlier.teacher + later.teacher)
            for earlier, later in pairwise(states)
        )

    def distances(self, student: list[Tensor], teacher: list[Tensor], real: Tensor | None) -> Tensor:
        return fsp_distance((student[0], student[1]), (teacher[0], teacher[1]), mask=real)


@dataclass(frozen=True)
class SelectivityTerm(FeatureTerm):
    """The discrepancy between what the hidden units of student and teacher look at: neuron selectivity transfer.

        Σ over rows of the mean over pairs of layers of ‖1 / C · Σ_c t_c t_cᵀ − 1 / C' · Σ_c s_c s_cᵀ‖²

    where t_c is the vector of what unit c of the teacher is at all real tokens of the row, divided by its length, and
    s_c likewise. It is the squared maximum mean discrepancy with the kernel (x · y)². Which unit looks at what does
    not matter, so student and teacher may differ in width, and nothing is projected.

    Unit: row. Reads: hidden states of both, of the layers that `layer_map` names. Learns: nothing.

    Args:
        layer_map: as in [`FeatureTerm`]; the paper compares the last layer.
        side: as in [`FeatureTerm`].

    References:
        Huang, Wang: Like What You Like: Knowledge Distill via Neuron Selectivity Transfer, 2017,
        https://arxiv.org/abs/1707.01219.
    """

    layer_map: LayerMap = "last"

    first_layer = 0
    unit = Unit.ROW

    @property
    def kinds(self) -> tuple[FeatureKind, ...]:
        return ("hidden_states",)

    def distances(self, student: list[Tensor], teacher: list[Tensor], real: Tensor | None) -> Tensor:
        return neuron_selectivity_mmd(*student, *teacher, mask=real)

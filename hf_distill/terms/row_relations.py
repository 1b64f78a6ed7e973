"""Relation knowledge: how a teacher sees the rows of a batch beside each other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from torch import Tensor

from hf_distill.errors import ConfigurationError
from hf_distill.functional import rkd_distance
from hf_distill.functional.pooling import Pooling, pooled_states, rows_with_tokens
from hf_distill.layer_maps import LayerMap
from hf_distill.terms.feature_terms import FeatureTerm
from hf_distill.types import FeatureKind, Unit


@dataclass(frozen=True)
class RowRelationTerm(FeatureTerm):
    """The distance between how the rows of a micro-batch relate to each other in the student and in the teacher.

        Σ over rows of the mean over pairs of layers of distance(student's rows, teacher's rows)

    Each row is one vector, pooled out of hidden states. Relations have no width, so nothing is projected.

    The rows **of one micro-batch** are related, so the gradient depends on how a batch is split into micro-batches and
    over processes. Micro-batches of one row say nothing.

    Unit: row. Reads: hidden states of both, of the layers that `layer_map` names. Learns: nothing.

    Args:
        layer_map: as in [`FeatureTerm`].
        distance: `rkd_distance`, `rkd_angle`, `similarity_preserving`, `correlation_congruence`, `pkt` or another
            function of `hf_distill.functional` with their signature.
        pooled: as in [`HiddenStateTerm`], without None.
        side: as in [`FeatureTerm`].

    Raises:
        ConfigurationError: if `layer_map` or `pooled` is none of these.

    References:
        Park, Kim, Lu, Cho: Relational Knowledge Distillation, 2019, https://arxiv.org/abs/1904.05068.

    Example:

        >>> from hf_distill.types import Anatomy, StackShape
        >>> student, teacher = Anatomy("S", {"": StackShape(2, 16)}), Anatomy("T", {"": StackShape(4, 32)})
        >>> term = RowRelationTerm().bound("rows", student, teacher)
        >>> term.layers, dict(term.learned_parts())
        ((LayerPair(student=2, teacher=4),), {})
    """

    layer_map: LayerMap = "last"
    distance: Callable[..., Tensor] = rkd_distance
    pooled: Pooling = "mean"

    first_layer = 0
    unit = Unit.ROW

    compares_rows = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooled not in get_args(Pooling):
            raise ConfigurationError(
                f"pooled must be 'first', 'last' or 'mean', got {self.pooled!r}: rows are related as one vector each."
            )

    @property
    def kinds(self) -> tuple[FeatureKind, ...]:
        return ("hidden_states",)

    def distances(self, student: list[Tensor], teacher: list[Tensor], real: Tensor | None) -> Tensor:
        states = (pooled_states(each, real, self.pooled) for each in (*student, *teacher))
        return self.distance(*states, mask=rows_with_tokens(real))

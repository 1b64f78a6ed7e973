"""What the terms have in common that compare hidden states, of models that may differ in width."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace

from torch import nn
from typing_extensions import Self

from hf_distill.layer_maps import LayerPair
from hf_distill.terms.feature_terms import FeatureTerm
from hf_distill.terms.projection import Projection
from hf_distill.types import Anatomy, Feature, FeatureKind


@dataclass(frozen=True)
class ProjectedStateTerm(FeatureTerm):
    """A term whose student states go through a learned map to the teacher's width, where that is another one.

    Args:
        layer_map, side: as in [`FeatureTerm`].
        name, widths: of the term, and of student and teacher; filled in when the term is bound.
    """

    _: KW_ONLY
    name: str = field(default="", repr=False)
    widths: tuple[int, int] = field(default=(0, 0), repr=False)

    first_layer = 0

    @property
    def kinds(self) -> tuple[FeatureKind, ...]:
        return ("hidden_states",)

    def bound(self, name: str, student: Anatomy, teacher: Anatomy) -> Self:
        widths = student.stack(self.side).hidden_size, teacher.stack(self.side).hidden_size
        return replace(super().bound(name, student, teacher), name=name, widths=widths)

    def learned_parts(self) -> Mapping[str, nn.Module]:
        if self.widths[0] == self.widths[1]:
            return {}
        return {self._part(*pair): Projection(*self.widths) for pair in self.layers}

    def _student(self, pair: LayerPair, kind: FeatureKind) -> Feature:
        return self._projected(pair.student, *pair)

    def _projected(self, layer: int, *labels: int | str) -> Feature:
        """A layer of the student, in the teacher's width."""
        projection = self._part(*labels) if self.widths[0] != self.widths[1] else None
        return Feature("hidden_states", layer, self.side, projection)

    def _part(self, *labels: int | str) -> str:
        """The name of a learned part."""
        return "_".join((self.name.replace(".", "_"), *map(str, labels)))

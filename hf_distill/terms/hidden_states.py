"""Feature knowledge: what the layers of a teacher make of each token."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import Self

from hf_distill.errors import ConfigurationError
from hf_distill.functional import hidden_mse
from hf_distill.functional.masking import keep_counted
from hf_distill.functional.precision import computation_dtype
from hf_distill.layer_maps import LayerPair
from hf_distill.terms.feature_terms import FeatureTerm
from hf_distill.terms.projection import Projection
from hf_distill.types import Anatomy, Feature, FeatureKind, Unit


POOLINGS = (None, "first", "last", "mean")


@dataclass(frozen=True)
class HiddenStateTerm(FeatureTerm):
    """The distance between hidden states of student and teacher.

        Σ over tokens of the mean over pairs of layers of distance(W · student, teacher)

    W is learned, one for each pair, where student and teacher differ in width; else it is left out. It is trained with
    the student, is never part of its files, and is kept beside them in checkpoints.

    Unit: token, of images and sounds row, with `pooled` row. Reads: hidden states of both, of the layers that
    `layer_map` names; layer 0 is what the first block reads. Learns: W.

    Args:
        layer_map: as in [`FeatureTerm`].
        distance: `hidden_mse`, `normalized_squared_distance`, `cosine_distance` or another function of
            `hf_distill.functional` with their signature.
        pooled: compare one vector a row: that of the `"first"` or the `"last"` real token, or the `"mean"` of all.
            None compares every token.
        side: as in [`FeatureTerm`].

    Raises:
        ConfigurationError: if `layer_map` or `pooled` is none of these.

    References:
        Romero et al.: FitNets: Hints for Thin Deep Nets, 2015, https://arxiv.org/abs/1412.6550.
        Jiao et al.: TinyBERT: Distilling BERT for Natural Language Understanding, 2020,
        https://arxiv.org/abs/1909.10351, equations 8 and 9.

    Example:

        >>> from hf_distill.types import Anatomy, StackShape
        >>> student, teacher = Anatomy("S", {"": StackShape(2, 16)}), Anatomy("T", {"": StackShape(4, 32)})
        >>> term = HiddenStateTerm().bound("hidden", student, teacher)
        >>> term.layers, list(term.learned_parts())
        ((LayerPair(student=1, teacher=2), LayerPair(student=2, teacher=4)), ['hidden_1_2', 'hidden_2_4'])
    """

    distance: Callable[..., Tensor] = hidden_mse
    pooled: Literal["first", "last", "mean"] | None = None
    _: KW_ONLY
    name: str = field(default="", repr=False)
    widths: tuple[int, int] = field(default=(0, 0), repr=False)
    """Of student and teacher; filled in, as the name, when the term is bound."""

    first_layer = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooled not in POOLINGS:
            raise ConfigurationError(f"pooled must be one of {POOLINGS}, got {self.pooled!r}.")

    @property
    def kinds(self) -> tuple[FeatureKind, ...]:
        return ("hidden_states",)

    @property
    def unit(self) -> Unit:
        return self.tokens if self.pooled is None else Unit.ROW

    def bound(self, name: str, student: Anatomy, teacher: Anatomy) -> Self:
        widths = student.stack(self.side).hidden_size, teacher.stack(self.side).hidden_size
        return replace(super().bound(name, student, teacher), name=name, widths=widths)

    def learned_parts(self) -> Mapping[str, nn.Module]:
        if self.widths[0] == self.widths[1]:
            return {}
        return {self._projection(pair): Projection(*self.widths) for pair in self.layers}

    def distances(self, student: list[Tensor], teacher: list[Tensor], real: Tensor | None) -> Tensor:
        (ours,), (theirs,) = student, teacher
        if self.pooled is None:
            return self.distance(ours, theirs, mask=real)
        is_row = None if real is None else real.any(dim=1)
        return self.distance(self._pooled(ours, real), self._pooled(theirs, real), mask=is_row)

    def _pooled(self, states: Tensor, real: Tensor | None) -> Tensor:
        """`(B, H)`: one vector a row."""
        real = torch.ones_like(states[..., 0], dtype=torch.bool) if real is None else real
        if self.pooled == "mean":
            total = keep_counted(states, real).sum(dim=1, dtype=computation_dtype(states))
            return total / real.sum(dim=1, keepdim=True).clamp(min=1)
        # argmax takes the first of several
        index = real.int().argmax(1) if self.pooled == "first" else real.shape[1] - 1 - real.int().flip(1).argmax(1)
        return states.take_along_dim(index[:, None, None], dim=1).squeeze(1)

    def _student(self, pair: LayerPair, kind: FeatureKind) -> Feature:
        projection = self._projection(pair) if self.widths[0] != self.widths[1] else None
        return replace(super()._student(pair, kind), projection=projection)

    def _projection(self, pair: LayerPair) -> str:
        return f"{self.name.replace('.', '_')}_{pair.student}_{pair.teacher}"

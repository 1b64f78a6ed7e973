"""What the terms have in common that compare features, which lie inside of the models."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import ClassVar, NamedTuple

from torch import Tensor
from typing_extensions import Self

from hf_distill.errors import ConfigurationError, MissingTeacherError
from hf_distill.layer_maps import LayerMap, LayerPair, check_layer_map, layer_pairs
from hf_distill.terms.base import Term
from hf_distill.types import Anatomy, Feature, FeatureKind, Positions, Requirements, Signals, TermLoss, Unit


class Comparison(NamedTuple):
    """Features that are compared with each other."""

    student: tuple[Feature, ...]
    teacher: tuple[Feature, ...]


@dataclass(frozen=True)
class FeatureTerm(Term):
    """A term that compares layers of a student with layers of its teacher.

    Σ over tokens of the mean over the pairs of layers of a distance

    The Trainer binds it to its two models, which then are known by their number of layers and their widths.

    Args:
        layer_map: which layers are compared: `"uniform"`, `"skip"`, `"top"`, `"last"`, or pairs (student layer,
            teacher layer); see [`layer_pairs`]. `"learned"` is for `HiddenStateTerm`.
        side: `"encoder"` or `"decoder"`, where a model has both.
        layers: filled in when the term is bound.
    """

    layer_map: LayerMap = "uniform"
    _: KW_ONLY
    side: str | None = None
    layers: tuple[LayerPair, ...] = field(default=(), repr=False)

    first_layer: ClassVar[int] = 1
    """The first layer that has what the term reads."""
    blends_layers: ClassVar[bool] = False
    """Whether it can learn from all layers of the teacher at once."""
    needs_same_classes: ClassVar[bool] = False
    reads_every_class: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_layer_map(self.layer_map)
        if self.layer_map == "learned" and not self.blends_layers:
            raise ConfigurationError(
                "layer_map='learned' blends the hidden states of all layers of the teacher, which "
                f"{type(self).__name__} cannot. Use `HiddenStateTerm`, or find a map with "
                "`layer_maps.most_similar_layers`."
            )

    @property
    @abstractmethod
    def kinds(self) -> tuple[FeatureKind, ...]:
        """What is read of each layer."""

    @abstractmethod
    def distances(self, student: list[Tensor], teacher: list[Tensor], real: Tensor | None) -> Tensor:
        """`(B, L)`, or `(B,)` of rows: how far off one comparison is, from its features, in the order of `kinds`.

        Args:
            real: bool `(B, L)`, True at tokens that are no padding. None says that all are none.
        """

    @property
    def unit(self) -> Unit:
        return self.tokens

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """What is compared with what. The term is the mean over these."""
        return tuple(
            Comparison(
                tuple(self._student(pair, kind) for kind in self.kinds),
                tuple(Feature(kind, pair.teacher, self.side) for kind in self.kinds),
            )
            for pair in self.layers
        )

    @property
    def requires(self) -> Requirements:
        comparisons = self.comparisons
        return Requirements(
            teacher=True,
            student_features=frozenset(feature for each in comparisons for feature in each.student),
            teacher_features=frozenset(feature for each in comparisons for feature in each.teacher),
        )

    def bound(self, name: str, student: Anatomy, teacher: Anatomy) -> Self:
        depths = student.stack(self.side).num_layers, teacher.stack(self.side).num_layers
        return replace(self, layers=layer_pairs(self.layer_map, *depths, first=self.first_layer))

    def __call__(self, student: Signals, teacher: Signals | None, where: Positions, progress: float) -> TermLoss:
        real = where.tokens.get(self.tokens)
        distances = [self.distances(*features, real) for features in self._features(student, teacher)]
        values = sum(distances[1:], distances[0]) / len(distances)
        if real is None and values.ndim == 2:
            values = values.mean(dim=1)  # of rows of one length, which are then the units
        return TermLoss(values.sum(), where.counts[self.unit])

    @property
    def tokens(self) -> Unit:
        """Whose tokens are compared, which `Positions.tokens` tells apart."""
        return Unit.DECODER_TOKEN if self.side == "decoder" else Unit.TOKEN

    def _student(self, pair: LayerPair, kind: FeatureKind) -> Feature:
        return Feature(kind, pair.student, self.side)

    def _features(self, student: Signals, teacher: Signals | None) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        name = type(self).__name__
        if not self.layers:
            raise ConfigurationError(
                f"{name} compares layers of two models, and is bound to none. `DistillationTrainer` binds it; "
                "elsewhere, call `objective.bound(student, teacher)` with the anatomies of the two models first."
            )
        if teacher is None or not self.requires.teacher_features <= teacher.features.keys():
            given = "teacher=None" if teacher is None else f"signals with the features {list(teacher.features)}"
            raise MissingTeacherError(
                f"{name} reads features inside of the teacher, and got {given}. Pass a model as `teacher=`."
            )
        for ours, theirs in self.comparisons:
            yield [student.features[feature] for feature in ours], [teacher.features[feature] for feature in theirs]

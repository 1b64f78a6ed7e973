"""Relation knowledge: how the tokens of a row relate to each other inside a layer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Literal

from torch import Tensor
from typing_extensions import Self

from hf_distill.errors import ConfigurationError
from hf_distill.functional import self_attention_relation
from hf_distill.layer_maps import LayerMap
from hf_distill.terms.feature_terms import FeatureTerm
from hf_distill.types import Anatomy, FeatureKind


Relation = Literal["queries", "keys", "values", "attention"]
RELATIONS: dict[str, tuple[FeatureKind, FeatureKind]] = {
    "queries": ("queries", "queries"),
    "keys": ("keys", "keys"),
    "values": ("values", "values"),
    "attention": ("queries", "keys"),
}
"""What is related with what."""


@dataclass(frozen=True)
class RelationTerm(FeatureTerm):
    """The divergence between the relations of tokens in student and teacher.

        Σ over tokens of the mean over relations and relation heads of KL(R^teacher ‖ R^student),
        R = softmax(A Bᵀ / √d) over the real tokens

    A and B are the queries, keys or values of a layer, all heads joined and split again into relation heads of width
    d, so student and teacher may differ in heads and widths, and nothing is projected. They are read as the
    projections give them, before rotary positions, and without biases of positions and causal masks; the fast
    attention stays on.

    Unit: token, of images and sounds row. Reads: queries, keys or values of both, of the layers that `layer_map`
    names. Learns: nothing.

    Args:
        layer_map: as in [`FeatureTerm`]; MiniLM and MiniLMv2 compare one layer.
        relations: of `"queries"`, `"keys"`, `"values"`, each with itself, and `"attention"`, of queries with keys.
        num_relation_heads: into how many heads all are split, which divides the joined widths of both. As many as the
            teacher has heads by default.
        relation_head_width: in place of their number, the width of the teacher's relation heads. There are fewer and
            wider ones where the joined widths have no such divisor in common.
        side: as in [`FeatureTerm`].

    Raises:
        ConfigurationError: for another relation or no relation, no whole number, or both numbers; when it is bound, if
            the relation heads do not divide both widths.

    References:
        Wang et al.: MiniLMv2: Multi-Head Self-Attention Relation Distillation for Compressing Pretrained
        Transformers, 2021, https://arxiv.org/abs/2012.15828, its multi-head self-attention relations.

    Example:

        >>> RelationTerm(relations=("attention", "values"), num_relation_heads=12).kinds
        ('queries', 'keys', 'values')
    """

    layer_map: LayerMap = "last"
    relations: tuple[Relation, ...] = ("queries", "keys", "values")
    num_relation_heads: int | None = None
    relation_head_width: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        are_known = isinstance(self.relations, Sequence) and all(each in list(RELATIONS) for each in self.relations)
        if not are_known or not self.relations or isinstance(self.relations, str):
            raise ConfigurationError(f"relations must be some of {', '.join(RELATIONS)}, got {self.relations!r}.")
        for name in ("num_relation_heads", "relation_head_width"):
            number = getattr(self, name)
            if number is not None and (type(number) is not int or number < 1):
                raise ConfigurationError(f"{name} must be a whole number from 1 on, or None, got {number!r}.")
        if self.num_relation_heads is not None and self.relation_head_width is not None:
            raise ConfigurationError(
                f"num_relation_heads={self.num_relation_heads} and relation_head_width={self.relation_head_width} say "
                "the same in two ways. Pass one of them."
            )

    @property
    def kinds(self) -> tuple[FeatureKind, ...]:
        return tuple(dict.fromkeys(kind for relation in self.relations for kind in RELATIONS[relation]))

    def bound(self, name: str, student: Anatomy, teacher: Anatomy) -> Self:
        widths = [model.stack(self.side).attention_width for model in (student, teacher)]
        num_heads = self.num_relation_heads or teacher.stack(self.side).num_attention_heads or None
        if self.relation_head_width is not None and 0 not in widths:  # 0 says that it is not known
            most = max(1, widths[1] // self.relation_head_width)
            num_heads = max(divisor for divisor in _divisors(gcd(*widths)) if divisor <= most)
        if num_heads and any(width % num_heads for width in widths):
            raise ConfigurationError(
                f"num_relation_heads={num_heads} must divide the joined widths of all heads, which are {widths[0]} in "
                f"the student {student.model} and {widths[1]} in the teacher {teacher.model}. Choose a divisor of "
                f"both, such as {_nearest_divisor(gcd(*widths), num_heads)}."
            )
        term = super().bound(name, student, teacher)
        return replace(term, num_relation_heads=num_heads, relation_head_width=None)

    def distances(self, student: list[Tensor], teacher: list[Tensor], real: Tensor | None) -> Tensor:
        num_heads = self.num_relation_heads or teacher[0].shape[1]
        ours, theirs = (dict(zip(self.kinds, vectors, strict=True)) for vectors in (student, teacher))
        values = []
        for first, second in (RELATIONS[relation] for relation in self.relations):
            keys = {} if first == second else {"student_keys": ours[second], "teacher_keys": theirs[second]}
            values.append(
                self_attention_relation(
                    ours[first], theirs[first], num_relation_heads=num_heads, token_mask=real, **keys
                ).mean(dim=1)
            )
        return sum(values[1:], values[0]) / len(values)


def _nearest_divisor(number: int, wanted: int) -> int:
    """Of two that are equally near, the larger one."""
    return min(_divisors(number), key=lambda divisor: (abs(divisor - wanted), -divisor))


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]

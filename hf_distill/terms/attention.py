"""Attention knowledge: which tokens a teacher's heads look at."""

import math
from dataclasses import dataclass

from torch import Tensor
from typing_extensions import Self

from hf_distill.errors import ConfigurationError
from hf_distill.functional import attention_kl, attention_mse
from hf_distill.functional.masking import keep_counted
from hf_distill.functional.precision import computation_dtype, without_autocast
from hf_distill.terms.feature_terms import FeatureTerm
from hf_distill.types import Anatomy, FeatureKind


@dataclass(frozen=True)
class HeadwiseTerm(FeatureTerm):
    """A term that compares each head of the student with the same head of the teacher."""

    def bound(self, name: str, student: Anatomy, teacher: Anatomy) -> Self:
        heads = [model.stack(self.side).num_attention_heads for model in (student, teacher)]
        if 0 not in heads and heads[0] != heads[1]:  # 0 says that they are not known
            raise ConfigurationError(
                f"the student {student.model} has {heads[0]} attention heads and the teacher {teacher.model} "
                f"{heads[1]}, and {type(self).__name__} compares them one by one. Use `RelationTerm`, which joins the "
                "heads and splits them again, or give the student as many heads."
            )
        return super().bound(name, student, teacher)


@dataclass(frozen=True)
class AttentionScoreTerm(HeadwiseTerm):
    """The mean squared difference of attention scores before the softmax.

        Σ over tokens i of the mean over pairs of layers, heads and real tokens j of (s_ij^student − s_ij^teacher)²,
        s_ij = q_i · k_j / √d

    The scores are made of the queries and keys that the projections give, so the fast attention stays on. They are
    those of the model where nothing comes between (BERT, RoBERTa, DistilBERT, ViT …); rotary positions and biases of
    positions are left out, and T5, which does not divide by √d, is divided.

    Unit: token, of images and sounds row. Reads: queries and keys of both. Learns: nothing. Student and teacher have
    as many heads.

    Args:
        layer_map: as in [`FeatureTerm`].
        side: as in [`FeatureTerm`].

    References:
        Jiao et al.: TinyBERT: Distilling BERT for Natural Language Understanding, 2020,
        https://arxiv.org/abs/1909.10351, equation 7.
    """

    @property
    def kinds(self) -> tuple[FeatureKind, ...]:
        return ("queries", "keys")

    def distances(self, student: list[Tensor], teacher: list[Tensor], real: Tensor | None) -> Tensor:
        dtype = computation_dtype(*student, *teacher)
        ours, theirs = (_scores(*(_real(each.to(dtype), real) for each in pair)) for pair in (student, teacher))
        return attention_mse(ours, theirs, token_mask=real).mean(dim=1)


@dataclass(frozen=True)
class AttentionMapTerm(HeadwiseTerm):
    """The divergence between attention probabilities.

        Σ over tokens of the mean over pairs of layers and heads of KL(attention^teacher ‖ attention^student)

    It is the attention that the models report, rotary positions, biases and masks included, and the price is the slow
    eager attention, to which both models are switched. In train mode it is reported after its dropout, so set that to
    0 in the student. `RelationTerm(relations=("attention",))` has neither price.

    Unit: token, of images and sounds row. Reads: attention maps of both. Learns: nothing. Student and teacher have as
    many heads.

    Args:
        layer_map: as in [`FeatureTerm`].
        side: as in [`FeatureTerm`].

    References:
        Wang et al.: MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained
        Transformers, 2020, https://arxiv.org/abs/2002.10957, equation 3.
    """

    @property
    def kinds(self) -> tuple[FeatureKind, ...]:
        return ("attentions",)

    def distances(self, student: list[Tensor], teacher: list[Tensor], real: Tensor | None) -> Tensor:
        return attention_kl(*student, *teacher, token_mask=real).mean(dim=1)


def _real(vectors: Tensor, real: Tensor | None) -> Tensor:
    return keep_counted(vectors.transpose(1, 2), real).transpose(1, 2)


def _scores(queries: Tensor, keys: Tensor) -> Tensor:
    with without_autocast(queries):
        scores: Tensor = queries / math.sqrt(queries.shape[-1]) @ keys.transpose(-1, -2)
    return scores

"""Feature knowledge: what the layers of a teacher make of each token."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hf_distill.errors import ConfigurationError
from hf_distill.functional import hidden_mse
from hf_distill.functional.masking import keep_counted
from hf_distill.functional.pooling import Pooling, pooled_states, rows_with_tokens
from hf_distill.functional.precision import computation_dtype
from hf_distill.terms.feature_terms import Comparison
from hf_distill.terms.projected_states import ProjectedStateTerm
from hf_distill.terms.projection import LearnedValues, Projection
from hf_distill.types import Feature, Unit


POOLINGS = (None, "first", "last", "mean")


@dataclass(frozen=True)
class HiddenStateTerm(ProjectedStateTerm):
    """The distance between hidden states of student and teacher.

        Σ over tokens of the mean over pairs of layers of distance(W · student, teacher)

    W is learned, one for each pair, where student and teacher differ in width; else it is left out. It is trained with
    the student, is never part of its files, and is kept beside them in checkpoints.

    With `layer_map="learned"` layer m of the student learns from all layers of the teacher at once,

        Σ over tokens of the mean over m of distance(W_m · student_m, Σ_n softmax_n(a_mn) · teacher_n)

    where a is learned too. It starts at a_mn = −|n − m · N / M|, so nearest to the layers of `"uniform"`. ALP-KD,
    whose idea this is, makes a of each row's own states, a_mn = student_m · teacher_n, and learns nothing.

    Unit: token, of images and sounds row, with `pooled` row. Reads: hidden states of both, of the layers that
    `layer_map` names; layer 0 is what the first block reads. Learns: W, and a.

    Args:
        layer_map: as in [`FeatureTerm`], or `"learned"`.
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
        Passban, Wu, Rezagholizadeh, Liu: ALP-KD: Attention-Based Layer Projection for Knowledge Distillation, 2021,
        https://arxiv.org/abs/2012.14022.

    Example:

        >>> from hf_distill.types import Anatomy, StackShape
        >>> student, teacher = Anatomy("S", {"": StackShape(2, 16)}), Anatomy("T", {"": StackShape(4, 32)})
        >>> term = HiddenStateTerm().bound("hidden", student, teacher)
        >>> term.layers, list(term.learned_parts())
        ((LayerPair(student=1, teacher=2), LayerPair(student=2, teacher=4)), ['hidden_1_2', 'hidden_2_4'])
        >>> list(HiddenStateTerm("learned").bound("hidden", student, teacher).learned_parts())
        ['hidden_1', 'hidden_1_layers', 'hidden_2', 'hidden_2_layers']
    """

    distance: Callable[..., Tensor] = hidden_mse
    pooled: Pooling | None = None

    blends_layers = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooled not in POOLINGS:
            raise ConfigurationError(f"pooled must be one of {POOLINGS}, got {self.pooled!r}.")

    @property
    def unit(self) -> Unit:
        return self.tokens if self.pooled is None else Unit.ROW

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        if self.layer_map != "learned":
            return super().comparisons
        theirs = tuple(Feature("hidden_states", layer, self.side) for layer in self._layers("teacher"))
        return tuple(
            Comparison(
                (
                    self._projected(layer, layer),
                    Feature("hidden_states", layer, self.side, self._part(layer, "layers")),
                ),
                theirs,
            )
            for layer in self._layers("student")
        )

    def learned_parts(self) -> Mapping[str, nn.Module]:
        if self.layer_map != "learned":
            return super().learned_parts()
        layers = self._layers("student")
        places = torch.tensor(self._layers("teacher"), dtype=torch.float32)
        parts: dict[str, nn.Module] = {}
        for layer in layers:
            if self.widths[0] != self.widths[1]:
                parts[self._part(layer)] = Projection(*self.widths)
            parts[self._part(layer, "layers")] = LearnedValues(-(places - layer * len(places) / len(layers)).abs())
        return parts

    def distances(self, student: list[Tensor], teacher: list[Tensor], real: Tensor | None) -> Tensor:
        ours, *weights = student
        theirs = _blended(weights[0], teacher, real) if weights else teacher[0]
        if self.pooled is None:
            return self.distance(ours, theirs, mask=real)
        states = (pooled_states(each, real, self.pooled) for each in (ours, theirs))
        return self.distance(*states, mask=rows_with_tokens(real))

    def _layers(self, model: str) -> list[int]:
        return sorted({getattr(pair, model) for pair in self.layers})


def _blended(weights: Tensor, layers: list[Tensor], real: Tensor | None) -> Tensor:
    """`(B, L, H)`: Σ_n softmax(weights)_n · layer n, 0 at padding."""
    dtype = computation_dtype(weights, *layers)
    shares = weights.to(dtype).softmax(dim=0)
    return sum(
        (share * keep_counted(layer.to(dtype), real) for share, layer in zip(shares, layers, strict=True)),
        torch.zeros((), dtype=dtype, device=weights.device),
    )

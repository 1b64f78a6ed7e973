"""Which layer of a student learns from which layer of its teacher.

Layers are counted as hidden states are: 0 is what the first block reads, n what block n returns.
"""

from collections.abc import Sequence
from itertools import product
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from hf_distill.errors import ConfigurationError
from hf_distill.functional import linear_cka


class LayerPair(NamedTuple):
    """A layer of the student and the layer of the teacher that it learns from."""

    student: int
    teacher: int


LayerMap = Literal["uniform", "skip", "top", "last", "learned"] | Sequence[tuple[int, int]]
"""`"uniform"`, `"skip"`, `"top"`, `"last"`, `"learned"`, or pairs (student layer, teacher layer), where −1 is the last
layer."""

NAMES = ("uniform", "skip", "top", "last", "learned")


def check_layer_map(layer_map: LayerMap) -> None:
    """Refuses what is no map, before the models are known.

    Raises:
        ConfigurationError: if it is neither a known name nor pairs of whole numbers.
    """
    if isinstance(layer_map, str):
        if layer_map not in NAMES:
            raise ConfigurationError(
                f"layer_map must be one of {', '.join(map(repr, NAMES))} or pairs (student layer, teacher layer), got "
                f"{layer_map!r}."
            )
    elif not isinstance(layer_map, Sequence) or not layer_map or not all(map(_is_pair, layer_map)):
        raise ConfigurationError(
            f"layer_map must hold at least one pair (student layer, teacher layer) of whole numbers, got "
            f"{layer_map!r}."
        )


def _is_pair(pair: object) -> bool:
    return isinstance(pair, Sequence) and len(pair) == 2 and all(type(layer) is int for layer in pair)


def layer_pairs(
    layer_map: LayerMap, num_student_layers: int, num_teacher_layers: int, *, first: int = 0
) -> tuple[LayerPair, ...]:
    """The pairs of a layer map for models of these depths, M student layers and N teacher layers.

    | map | student layer m learns from | of |
    |---|---|---|
    | `"uniform"` | m · N / M, rounded | every layer, as TinyBERT |
    | `"skip"` | the same | every layer but the last one, as PKD-Skip |
    | `"top"` | m + N − M | every layer but the last one, as PKD-Last |
    | `"last"` | N | the last layer |
    | `"learned"` | all N blocks, weighed: a pair for each, in the order of m | every layer, as ALP-KD |
    | pairs | as they say; −1 is the last layer, −2 the one before | those that are named |

    The embeddings, layer 0, are in no named map; pair them as (0, 0).

    Args:
        layer_map: a name or pairs.
        num_student_layers: M.
        num_teacher_layers: N.
        first: the first layer that exists, 0 for hidden states and 1 for what only blocks have.

    Raises:
        ConfigurationError: if a pair names a layer that does not exist, the student is deeper than the teacher, or
            nothing is left to learn.

    References:
        Sun, Cheng, Gan, Liu: Patient Knowledge Distillation for BERT Model Compression, 2019,
        https://arxiv.org/abs/1908.09355, section 3.2.
        Jiao et al.: TinyBERT, 2020, https://arxiv.org/abs/1909.10351, section 3.
        Passban, Wu, Rezagholizadeh, Liu: ALP-KD: Attention-Based Layer Projection for Knowledge Distillation, 2021,
        https://arxiv.org/abs/2012.14022.

    Example:

        >>> [pair.teacher for pair in layer_pairs("skip", 6, 12)], [pair.teacher for pair in layer_pairs("top", 6, 12)]
        ([2, 4, 6, 8, 10], [7, 8, 9, 10, 11])
    """
    check_layer_map(layer_map)
    ours, theirs = num_student_layers, num_teacher_layers
    if not isinstance(layer_map, str):
        return tuple(
            LayerPair(_resolved("student", pair[0], ours, first), _resolved("teacher", pair[1], theirs, first))
            for pair in layer_map
        )
    if layer_map == "last":
        return (LayerPair(ours, theirs),)
    if layer_map == "learned":
        return tuple(LayerPair(*pair) for pair in product(range(1, ours + 1), range(1, theirs + 1)))
    if ours > theirs:
        raise ConfigurationError(
            f"the student has {ours} layers and the teacher {theirs}, so layer_map={layer_map!r} cannot give each a "
            "layer of its own. Name the pairs, as in `layer_map=[(-1, -1)]`."
        )
    layers = range(1, ours + 1 if layer_map == "uniform" else ours)
    if not layers:
        raise ConfigurationError(
            f"layer_map={layer_map!r} leaves out the last layer, and the student has only {ours}, the teacher "
            f"{theirs}. Use layer_map='last'."
        )
    if layer_map == "top":
        return tuple(LayerPair(layer, layer + theirs - ours) for layer in layers)
    return tuple(LayerPair(layer, (2 * layer * theirs + ours) // (2 * ours)) for layer in layers)


def most_similar_layers(
    student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], *, mask: Tensor | None = None
) -> tuple[LayerPair, ...]:
    """The map in ascending order whose layers are the most alike, to be passed as `layer_map=`.

        argmax over n_0 < n_1 < … of Σ_m CKA(student layer m, teacher layer n_m)

    It is found exactly, by dynamic programming, and once, before training. Give many more tokens than a layer has
    features; see [`linear_cka`].

    Shapes: B batch, L tokens, H hidden, each model's own.

    Args:
        student_features: `(B, L, H)` for each layer of the student from 0, its `hidden_states`.
        teacher_features: the same for the teacher.
        mask: bool `(B, L)`, True at real tokens. None says that all are.

    Raises:
        ConfigurationError: if the student has more layers than the teacher.

    References:
        Kornblith, Norouzi, Lee, Hinton: Similarity of Neural Network Representations Revisited, 2019,
        https://arxiv.org/abs/1905.00414.

    Example:

        >>> teacher = [torch.randn(4, 8, 3) for _ in range(5)]
        >>> most_similar_layers([teacher[0], teacher[3], teacher[4]], teacher)
        (LayerPair(student=0, teacher=0), LayerPair(student=1, teacher=3), LayerPair(student=2, teacher=4))
    """
    ours, theirs = len(student_features), len(teacher_features)
    if ours > theirs:
        raise ConfigurationError(
            f"student_features hold {ours} layers and teacher_features {theirs}, so they cannot be paired one to one. "
            "Leave out layers of the student."
        )
    alike = torch.stack(
        [torch.stack([linear_cka(mine, yours, mask=mask) for yours in teacher_features]) for mine in student_features]
    ).tolist()
    # best[n]: the largest sum, and its teacher layers, with the student's layer so far at a teacher layer up to n
    best: list[tuple[float, tuple[int, ...]]] = [(0.0, ())] * (theirs + 1)
    for layer in range(ours):
        extended: list[tuple[float, tuple[int, ...]]] = [(float("-inf"), ())]
        for other in range(theirs):
            total, chosen = best[other]
            extended.append(max(extended[-1], (total + alike[layer][other], (*chosen, other))))
        best = extended
    return tuple(LayerPair(layer, other) for layer, other in enumerate(best[-1][1]))


def _resolved(who: str, layer: int, num_layers: int, first: int) -> int:
    resolved = layer + num_layers + 1 if layer < 0 else layer
    if not first <= resolved <= num_layers:
        raise ConfigurationError(
            f"layer_map names layer {layer} of the {who}, which has the layers {first} to {num_layers}. Choose one of "
            "them, or count from the end with −1, −2 …"
        )
    return resolved

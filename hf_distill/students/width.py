"""A student with narrower layers: fewer heads, neurons and hidden units."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hf_distill.students.importance import Slices, magnitudes, taylor_scores
from hf_distill.students.rebuild import empty_model, rebuilt, tensors_of
from hf_distill.students.width_families import FAMILIES, Family, LayerUnits, layers_of
from hf_distill.types import Batch


@dataclass(frozen=True)
class Widths:
    """How wide a model is."""

    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int


@dataclass(frozen=True)
class KeptUnits:
    """Which units a narrower model keeps, ascending: the same hidden ones everywhere, all others layer by layer."""

    hidden: list[Tensor]
    """One, or none where the hidden size stays."""
    heads: list[Tensor]
    key_value_heads: list[Tensor]
    neurons: list[Tensor]


def widths_of(config: Any, family: Family) -> Widths:
    """How wide the model of a configuration is."""
    heads = config.num_attention_heads
    key_value_heads = getattr(config, "num_key_value_heads", None) or heads
    return Widths(config.hidden_size, heads, key_value_heads, getattr(config, family.intermediate_field))


def narrower_widths(config: Any, family: Family, wanted: Mapping[str, int | None]) -> tuple[Widths, list[str]]:
    """How wide the student is to be, what is not asked for following from the rest, and what is impossible about it.

    Args:
        config: the teacher's.
        family: its family.
        wanted: some of the fields of `Widths`.

    Returns:
        The widths, and the faults with both values. If there are faults the widths mean nothing.
    """
    old = widths_of(config, family)
    asked = {name: size for name, size in wanted.items() if size is not None}
    faults = [
        f"{name}={size}, but the teacher has {getattr(old, name)}: take 1 to {getattr(old, name)}"
        for name, size in asked.items()
        if not 1 <= size <= getattr(old, name)
    ]
    hidden, heads = asked.get("hidden_size", old.hidden_size), asked.get("num_attention_heads")
    if old.hidden_size != hidden == getattr(config, "embedding_size", None):
        faults.append(
            f"hidden_size={hidden} is also the teacher's embedding_size, and the student would have no projection "
            "from one to the other: take another size"
        )
    if not family.has_head_size:
        head_size = old.hidden_size // old.num_attention_heads
        if hidden % head_size:
            faults.append(f"hidden_size={hidden} is no multiple of {head_size}, the size of the teacher's heads")
        elif heads not in (None, hidden // head_size):
            faults.append(
                f"hidden_size={hidden} and num_attention_heads={heads} make heads of another size than the teacher's "
                f"{head_size}, since this architecture divides one by the other: take {hidden // head_size} heads, or "
                f"hidden_size={head_size * (heads or 0)}"
            )
        heads = hidden // head_size
    heads = old.num_attention_heads if heads is None else heads
    if heads > 0 and hidden % heads:
        faults.append(f"num_attention_heads={heads} does not divide hidden_size={hidden}")
    key_value_heads = asked.get("num_key_value_heads")
    if key_value_heads is None:
        is_grouped = old.num_key_value_heads < old.num_attention_heads
        key_value_heads = old.num_key_value_heads if is_grouped else heads
    queries = old.num_attention_heads // old.num_key_value_heads
    if heads % max(key_value_heads, 1) or heads > queries * key_value_heads:
        faults.append(
            f"num_attention_heads={heads} cannot be shared among num_key_value_heads={key_value_heads}: each of these "
            f"takes equally many queries, at most the teacher's {queries}"
        )
    return Widths(hidden, heads, key_value_heads, asked.get("intermediate_size", old.intermediate_size)), faults


def with_narrower_layers(
    model: PreTrainedModel, widths: Widths, importance_data: Iterable[Batch] | None = None
) -> PreTrainedModel:
    """A model with the most important heads, neurons and hidden units of another.

    Args:
        model: the teacher.
        widths: of the student.
        importance_data: batches with labels on which importance is measured; without any, the size of weights counts.
    """
    layers = layers_of(model)
    hidden = hidden_units(model, widths, layers)
    if importance_data is None:
        scores = _size_scores(model, hidden, layers)
    else:
        kinds = [*hidden, *(layer.heads[-1] for layer in layers), *(layer.neurons[-1] for layer in layers)]
        measured = taylor_scores(model, kinds, importance_data)
        scores = _Scores(measured[: len(hidden)], measured[len(hidden) : -len(layers)], measured[-len(layers) :])
    chosen = [
        most_important_heads(of_heads, layer.key_value_heads[0].num_units, widths)
        for of_heads, layer in zip(scores.heads, layers, strict=True)
    ]
    kept = KeptUnits(
        [largest(of_hidden, widths.hidden_size) for of_hidden in scores.hidden],
        [heads for heads, _ in chosen],
        [key_value_heads for _, key_value_heads in chosen],
        [largest(of_neurons, widths.intermediate_size) for of_neurons in scores.neurons],
    )
    return with_kept_units(model, widths, kept)


def with_kept_units(model: PreTrainedModel, widths: Widths, kept: KeptUnits) -> PreTrainedModel:
    """A model with some heads, neurons and hidden units of another."""
    layers = layers_of(model)
    chosen = list(zip(hidden_units(model, widths, layers), kept.hidden, strict=True))
    for number, layer in enumerate(layers):
        chosen += [(units, kept.heads[number]) for units in layer.heads]
        chosen += [(units, kept.key_value_heads[number]) for units in layer.key_value_heads]
        chosen += [(units, kept.neurons[number]) for units in layer.neurons]
    tensors = tensors_of(model)
    for units, indices in chosen:
        for name, axis in units.places:
            tensors[name] = _selected(tensors[name], axis, units.num_units, indices)
    return rebuilt(model, with_widths(model.config, widths), tensors)


def with_widths(config: Any, widths: Widths) -> Any:
    """A copy of a configuration with other widths. The size of a head stays."""
    family = FAMILIES[config.model_type]
    config = copy.deepcopy(config)
    if family.has_head_size:
        config.head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if hasattr(config, "num_key_value_heads"):
        config.num_key_value_heads = widths.num_key_value_heads
    if getattr(config, "embedding_size", None) == config.hidden_size:
        config.embedding_size = widths.hidden_size  # ELECTRA without a projection from one to the other
    config.hidden_size, config.num_attention_heads = widths.hidden_size, widths.num_attention_heads
    setattr(config, family.intermediate_field, widths.intermediate_size)
    return config


def hidden_units(model: PreTrainedModel, widths: Widths, layers: Sequence[LayerUnits]) -> list[Slices]:
    """The axes that become shorter with the hidden size and count neither heads nor neurons; none if it stays.

    They are found by comparing shapes with a model that is built without weights.
    """
    old = model.config.hidden_size
    if widths.hidden_size == old:
        return []
    counted = {
        place
        for layer in layers
        for units in (*layer.heads, *layer.key_value_heads, *layer.neurons)
        for place in units.places
    }
    shorter = tensors_of(empty_model(model, with_widths(model.config, widths), device="meta"))
    places = tuple(
        (name, axis)
        for name, tensor in tensors_of(model).items()
        for axis, size in enumerate(tensor.shape)
        if (name, axis) not in counted and (size, shorter[name].shape[axis]) == (old, widths.hidden_size)
    )
    return [Slices(places, old)]


def most_important_heads(scores: Tensor, num_key_value_heads: int, widths: Widths) -> tuple[Tensor, Tensor]:
    """The heads to keep in a layer, and the heads of keys and values that they share.

    Those of keys and values are kept whose best queries are worth most together; each keeps these queries.

    Args:
        scores: `(num_attention_heads,)` of the teacher.
        num_key_value_heads: of the teacher.
        widths: of the student.

    Returns:
        Indices of queries and of keys and values, each ascending.

    Example:

        >>> widths = Widths(8, num_attention_heads=2, num_key_value_heads=1, intermediate_size=8)
        >>> most_important_heads(torch.tensor([9.0, 0.0, 1.0, 5.0, 6.0, 0.0]), 2, widths)
        (tensor([3, 4]), tensor([1]))
    """
    queries = widths.num_attention_heads // widths.num_key_value_heads
    by_group = scores.view(num_key_value_heads, -1)
    groups = largest(by_group.topk(queries, 1).values.sum(1), widths.num_key_value_heads)
    heads = [group * by_group.shape[1] + largest(by_group[group], queries) for group in groups]
    return torch.cat(heads), groups


def largest(scores: Tensor, num_kept: int) -> Tensor:
    """The indices of the largest scores, ascending; of equal scores the first.

    Example:

        >>> largest(torch.tensor([1.0, 3.0, 2.0, 3.0]), 2)
        tensor([1, 3])
    """
    return scores.sort(descending=True, stable=True).indices[:num_kept].sort().values


class _Scores(NamedTuple):
    hidden: list[Tensor]
    heads: list[Tensor]
    neurons: list[Tensor]


def _size_scores(model: PreTrainedModel, hidden: Sequence[Slices], layers: Sequence[LayerUnits]) -> _Scores:
    """By the size of weights: of what writes a unit times of what reads it. For a head that is its values."""
    heads = []
    for layer in layers:
        values, read = layer.key_value_heads[-1], layer.heads[-1]
        shared = read.num_units // values.num_units
        heads.append(magnitudes(model, [values]).repeat_interleave(shared) * magnitudes(model, [read]))
    return _Scores(
        [magnitudes(model, [units]) for units in hidden], heads, [magnitudes(model, layer.neurons) for layer in layers]
    )


def _selected(tensor: Tensor, axis: int, num_units: int, indices: Tensor) -> Tensor:
    entries = torch.arange(tensor.shape[axis], device=tensor.device).view(num_units, -1)
    return tensor.index_select(axis, entries[indices.to(tensor.device)].flatten())

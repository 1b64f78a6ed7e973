"""Layers in a cache: which are kept, how they are read of a teacher, and how they are given in its place."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hf_distill.cache import FeatureRecords
from hf_distill.cache.feature_records import Place
from hf_distill.cache.records import CacheDType
from hf_distill.errors import ConfigurationError, UnsupportedModelError
from hf_distill.feature_reading import FeatureReader, anatomy_of
from hf_distill.functional.pooling import Pooling, pooled_states
from hf_distill.heads import Head
from hf_distill.types import TEACHER_PREFIX, Anatomy, Batch, Feature


Layers = Sequence[int] | Mapping[str, Sequence[int]]
"""Layers of a model with one stack of blocks, or of each side of one with several."""

_Features = Mapping[Feature, Tensor]


def place_of(feature: Feature, anatomy: Anatomy) -> Place | None:
    """Where a feature is kept; None for what is never kept."""
    if feature.kind != "hidden_states":
        return None
    return Place(str(feature.side) if feature.side in anatomy.stacks else "", feature.layer)


def tokens_of(place: Place, head: Head, batch: Batch) -> Tensor | None:
    """Bool `(B, L)`: the tokens of that side that are no padding. None where rows are no text."""
    return head.decoder_tokens(batch) if place.side == "decoder" else head.tokens(batch)


# ---- Building -------------------------------------------------------------------------------------------------------


@contextmanager
def reading_layers(
    model: PreTrainedModel, layers: Layers | None, pooled: Pooling | None, dtype: CacheDType
) -> Iterator[FeatureRecords | None]:
    """Let a teacher give the hidden states of its layers beside its answers; how they are to be written.

    Raises:
        ConfigurationError: if there is no such layer or side, or `pooled` is none of the known ones.
    """
    if layers is None:
        if pooled is not None:
            raise ConfigurationError(
                f"`pooled={pooled!r}` says which vector of a row is kept of `layers`, and these are left out. Name "
                "them, as in `layers=[-1]`."
            )
        yield None
        return
    if pooled not in (None, "first", "last", "mean"):
        raise ConfigurationError(f"`pooled` must be None, 'first', 'last' or 'mean', got {pooled!r}.")
    anatomy = anatomy_of(model)
    records = FeatureRecords(anatomy, _chosen(layers, anatomy), pooled, dtype)
    reader = FeatureReader(model, [_feature(place) for place in records.places])
    reader.attach()
    try:
        yield records
    finally:
        reader.remove()


def with_fixed_lengths(records: FeatureRecords, features: _Features, head: Head, batch: Batch) -> FeatureRecords:
    """The records of a build, which know how many places each row has where rows are no text.

    Raises:
        ConfigurationError: if the teacher reads other tokens than the student.
    """
    if own := [name for name in batch if name.startswith(TEACHER_PREFIX)]:
        raise ConfigurationError(
            f"`layers` are compared token by token, and the batch has inputs of the teacher's own, {own}, which are "
            "other tokens. Leave those columns out, or `layers`."
        )
    lengths = {p.side: features[_feature(p)].shape[1] for p in records.places if tokens_of(p, head, batch) is None}
    return replace(records, num_tokens=lengths)


def mean_tokens(records: FeatureRecords, head: Head, batch: Batch) -> dict[str, int]:
    """How many tokens a row of this batch has on each side, on average."""
    real = {place.side: tokens_of(place, head, batch) for place in records.places}
    return {
        side: records.num_tokens[side] if mask is None else int(mask.sum()) // len(mask) for side, mask in real.items()
    }


def encoded_states(
    records: FeatureRecords, features: _Features, head: Head, batch: Batch, num_rows: int
) -> list[bytes]:
    """What is written of each row of a batch.

    Raises:
        UnsupportedModelError: if it is not known which of the hidden states are those of the row's tokens.
    """
    parts: dict[Place, Sequence[Tensor]] = {}
    for place in records.places:
        states, real = features[_feature(place)], tokens_of(place, head, batch)
        expected = (num_rows, records.num_tokens[place.side]) if real is None else tuple(real.shape)
        if tuple(states.shape[:2]) != expected or len(states) != num_rows:
            raise UnsupportedModelError(
                f"layer {place.layer} of {records.anatomy.model} has hidden states of shape {tuple(states.shape)} for "
                f"{num_rows} rows with tokens of shape {expected}, so it is not known which belong to which row. "
                "Leave `layers` out, and pass the model itself as `teacher=` for terms that compare layers."
            )
        if records.pooled is not None:
            parts[place] = pooled_states(states, real, records.pooled).cpu().split(1)  # type: ignore[arg-type]
        elif real is None:
            parts[place] = states.cpu().unbind()
        else:
            parts[place] = states[real].cpu().split(real.sum(1).tolist())
    return [records.encode({place: states[row] for place, states in parts.items()}) for row in range(num_rows)]


def _feature(place: Place) -> Feature:
    return Feature("hidden_states", place.layer, place.side or None)


def _chosen(layers: Layers, anatomy: Anatomy) -> dict[str, tuple[int, ...]]:
    """The layers of each side, from the first to the last."""
    sides = sorted(anatomy.stacks)
    if isinstance(layers, Mapping):
        by_side = dict(layers)
    elif len(sides) == 1:
        by_side = {sides[0]: layers}
    else:
        by_side = {}
    if not by_side or not by_side.keys() <= anatomy.stacks.keys():
        raise ConfigurationError(
            f"{anatomy.model} has the stacks {sides}, and layers={layers!r} does not say of which. Pass a list where "
            "there is one stack, and else a dictionary with their names."
        )
    return {side: _resolved(numbers, anatomy.stacks[side].num_layers) for side, numbers in sorted(by_side.items())}


def _resolved(layers: Sequence[int], num_layers: int) -> tuple[int, ...]:
    found = sorted({layer + num_layers + 1 if layer < 0 else layer for layer in layers})
    if not found or not 0 <= found[0] <= found[-1] <= num_layers:
        raise ConfigurationError(
            f"`layers` has {list(layers)}, and the teacher has the layers 0 to {num_layers}. Choose some of them, or "
            "count from the end with −1, −2 …"
        )
    return tuple(found)


# ---- Reading --------------------------------------------------------------------------------------------------------


def placed_states(
    kept: Sequence[Any], records: FeatureRecords, wanted: Collection[Place], head: Head, batch: Batch
) -> dict[Place, Tensor]:
    """What is kept of each row, side by side: `(B, L, H)`, 0 at padding, or `(B, H)` if it is pooled."""
    sides = {place.side: tokens_of(place, head, batch) for place in records.places}
    real = {side: None if mask is None else mask.cpu() for side, mask in sides.items()}
    numbers = {side: mask.sum(1).tolist() for side, mask in real.items() if mask is not None}
    rows = [
        records.decode(record, {**records.num_tokens, **{side: each[row] for side, each in numbers.items()}}, wanted)
        for row, record in enumerate(kept)
    ]
    found = {}
    for place in wanted:
        found[place] = torch.cat([row[place] for row in rows])
        if records.pooled is not None:
            continue
        states, mask = found[place], real[place.side]
        if mask is None:
            found[place] = states.view(len(rows), -1, states.shape[-1])
        else:
            found[place] = states.new_zeros(*mask.shape, states.shape[-1])
            found[place][mask] = states
    return found


def given_states(states: Tensor, real: Tensor | None) -> Tensor:
    """`(B, L, H)`, as a term reads it. A pooled vector stands at every token, so that it is pooled to itself."""
    if states.ndim == 3:
        return states
    return states[:, None].expand(-1, 1 if real is None else real.shape[1], -1)

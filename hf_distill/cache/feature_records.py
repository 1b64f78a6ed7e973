"""How the hidden states of one row are written: layer by layer, each as answers are."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from hf_distill.cache.records import CacheDType, DenseRecords, compressed, decompressed
from hf_distill.errors import ConfigurationError, DamagedCacheError
from hf_distill.types import Anatomy, StackShape


class Place(NamedTuple):
    """One layer of one stack of blocks."""

    side: str
    """`""` for the only stack of a model."""
    layer: int


@dataclass(frozen=True)
class FeatureRecords:
    """The hidden states of some layers: of every token of a row, or one vector a row.

    Args:
        anatomy: of the model whose they are.
        layers: those that are kept, by their side.
        pooled: `"first"`, `"last"` or `"mean"`: which vector of a row is kept. None keeps every token.
        dtype: what they are kept in; with "uint8", each token of each layer has steps of its own.
        num_tokens: how many a row of each side has, where rows are no text and all have as many.
    """

    anatomy: Anatomy
    layers: Mapping[str, tuple[int, ...]]
    pooled: str | None = None
    dtype: CacheDType = "float16"
    num_tokens: Mapping[str, int] = field(default_factory=dict)

    @property
    def places(self) -> tuple[Place, ...]:
        """The layers in the order in which they are written."""
        return tuple(Place(side, layer) for side, layers in self.layers.items() for layer in layers)

    def num_bytes(self, num_tokens: Mapping[str, int]) -> int:
        """How many bytes a row takes before it is compressed.

        Args:
            num_tokens: of each side.
        """
        return sum(self._records(place).num_bytes(self._count(place, num_tokens)) for place in self.places)

    def encode(self, states: Mapping[Place, Tensor]) -> bytes:
        """The bytes that are written for one row, `(N, H)` for each place, where N is 1 if `pooled`.

        Raises:
            ConfigurationError: if a number is NaN, or too large for the precision that was chosen.
        """
        return compressed(b"".join(self._records(place).to_bytes({"values": states[place]}) for place in self.places))

    def decode(self, record: Any, num_tokens: Mapping[str, int], wanted: Collection[Place]) -> dict[Place, Tensor]:
        """What `encode` was given, of the places that are wanted.

        Raises:
            DamagedCacheError: if the bytes are not those of a row of so many tokens.
        """
        size = self.num_bytes(num_tokens)
        whole = np.frombuffer(decompressed(record, size, sum(num_tokens.values())), np.uint8)[None]
        found, start = {}, 0
        for place in self.places:
            records, count = self._records(place), self._count(place, num_tokens)
            stop = start + records.num_bytes(count)
            if place in wanted:
                found[place] = records.from_bytes(whole[:, start:stop], count)["values"][0]
            start = stop
        return found

    def _records(self, place: Place) -> DenseRecords:
        return DenseRecords((self.anatomy.stacks[place.side].hidden_size,), self.dtype)

    def _count(self, place: Place, num_tokens: Mapping[str, int]) -> int:
        return num_tokens[place.side] if self.pooled is None else 1

    def description(self) -> dict[str, Any]:
        """What the manifest says of it."""
        stacks = {
            side: {"num_layers": shape.num_layers, "hidden_size": shape.hidden_size}
            for side, shape in self.anatomy.stacks.items()
        }
        return {
            "model": self.anatomy.model,
            "stacks": stacks,
            "layers": {side: list(layers) for side, layers in self.layers.items()},
            "pooled": self.pooled,
            "dtype": self.dtype,
            "num_tokens": dict(self.num_tokens),
        }

    @classmethod
    def from_description(cls, known: Mapping[str, Any]) -> "FeatureRecords":
        """What `description` has said.

        Raises:
            DamagedCacheError: if it is anything else.
        """
        try:
            stacks = {side: StackShape(**shape) for side, shape in known["stacks"].items()}
            layers = {side: tuple(layers) for side, layers in known["layers"].items()}
            records = cls(
                Anatomy(str(known["model"]), stacks),
                layers,
                known["pooled"],
                known["dtype"],
                dict(known["num_tokens"]),
            )
            sizes = [size for shape in stacks.values() for size in (shape.num_layers, shape.hidden_size)]
            numbers = [*sizes, *records.num_tokens.values(), *(place.layer for place in records.places)]
            is_right = (
                bool(records.places)
                and all(type(number) is int and 0 <= number < 2**31 for number in numbers)
                and all(place.layer <= stacks[place.side].num_layers for place in records.places)
                and records.pooled in (None, "first", "last", "mean")
                and records.num_bytes(dict.fromkeys(layers, 0)) >= 0
                and records.description() == dict(known)
            )
        except (TypeError, KeyError, AttributeError, ValueError, ConfigurationError) as error:
            raise DamagedCacheError(f"a manifest describes features as {dict(known)}: {error}") from error
        if not is_right:
            raise DamagedCacheError(f"a manifest describes features as {dict(known)}, which no model has.")
        return records

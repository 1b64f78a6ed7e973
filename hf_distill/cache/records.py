"""How what a teacher said about one row is written: numbers of a chosen precision, in planes of bytes, compressed."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_distill.errors import ConfigurationError, DamagedCacheError


CacheDType = Literal["float32", "float16", "bfloat16", "uint8"]
"""What numbers are kept in. In "uint8", a position has 256 even steps between its smallest and its largest number."""

_UNSIGNED = {"float32": np.uint32, "float16": np.uint16, "bfloat16": np.uint16, "uint8": np.uint8}
_STEPS = 255
_SCALE_SIZE = 8
"""Bytes of the smallest number and the step of a position, in float32."""

_ZSTD = pa.Codec("zstd", compression_level=9)

Answers = Mapping[str, Tensor]
"""What is kept of a row, by name: tensors with its N positions on the first axis."""


class Records(ABC):
    """What is kept of each position, and how that becomes bytes.

    The bytes of a row are compressed by zstd where that makes them fewer. How many they were before is known from the
    number of positions, and is looked at before anything is allocated.
    """

    dtype: CacheDType
    fills: Mapping[str, float]
    """What stands where no position is."""

    @abstractmethod
    def num_bytes(self, num_positions: int) -> int:
        """How many bytes as many positions take before they are compressed."""

    @abstractmethod
    def to_bytes(self, answers: Answers) -> bytes:
        """Before compression."""

    @abstractmethod
    def from_bytes(self, records: NDArray[np.uint8], num_positions: int) -> dict[str, Tensor]:
        """What `to_bytes` was given of R rows of one length, `(R, N, …)`, in the precision that is kept.

        Args:
            records: `(R, num_bytes(num_positions))`, before compression.
            num_positions: N.

        Raises:
            DamagedCacheError: if one names a class that there is not.
        """

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """What the manifest says of it."""

    def encode(self, answers: Answers) -> bytes:
        """The bytes that are written for one row.

        Raises:
            ConfigurationError: if a number is NaN, or too large for the precision that was chosen.
        """
        return compressed(self.to_bytes(answers))

    def decode(self, records: Sequence[Any], nums_positions: Sequence[int]) -> list[dict[str, Tensor]]:
        """What is kept of each of some rows. Those of one length are decoded together.

        Raises:
            DamagedCacheError: if the bytes of a row are not those of so many positions.
        """
        found: list[dict[str, Tensor]] = [{} for _ in records]
        for number in set(nums_positions):
            rows = [row for row, each in enumerate(nums_positions) if each == number]
            size = self.num_bytes(number)
            whole = b"".join(decompressed(records[row], size, number) for row in rows)
            said = self.from_bytes(np.frombuffer(whole, np.uint8).reshape(len(rows), size), number)
            for place, row in enumerate(rows):
                found[row] = {name: values[place] for name, values in said.items()}
        return found


@dataclass(frozen=True)
class DenseRecords(Records):
    """Every number that the teacher gives at a position.

    Args:
        shape: of these numbers: the number of classes, or classes by two.
        dtype: what they are kept in.
        fill: what stands where no position is.
    """

    shape: tuple[int, ...]
    dtype: CacheDType = "float16"
    fill: float = 0.0

    def __post_init__(self) -> None:
        check_dtype(self.dtype)

    @property
    def fills(self) -> Mapping[str, float]:  # type: ignore[override]
        return {"values": self.fill}

    @property
    def _width(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def num_bytes(self, num_positions: int) -> int:
        return num_positions * position_size(self._width, self.dtype)

    def to_bytes(self, answers: Answers) -> bytes:
        codes, scales = to_codes(answers["values"].flatten(1), self.dtype)
        return planes(codes) + scales

    def from_bytes(self, records: NDArray[np.uint8], num_positions: int) -> dict[str, Tensor]:
        cursor = Cursor(records)
        codes = cursor.planes((num_positions, self._width), _UNSIGNED[self.dtype])
        return {"values": from_codes(codes, cursor, self.dtype).view(len(records), num_positions, *self.shape)}

    def description(self) -> dict[str, Any]:
        return {"kind": "dense", "shape": list(self.shape), "dtype": self.dtype, "fill": self.fill}


@dataclass(frozen=True)
class TopKRecords(Records):
    """The k likeliest classes of each position, and how much the others weigh together.

    Log-probabilities lie in descending order, so their codes only rise and are kept as differences. Of a class's
    number the lower 16 bits are kept as they are, and those above packed, as many as the number of classes asks for.

    Args:
        k: how many classes are kept.
        num_classes: how many there are.
        num_tails: how many numbers say how much the others weigh.
        dtype: what log-probabilities are kept in. Tails are kept in float16, or in float32 with these.
    """

    k: int
    num_classes: int
    num_tails: int
    dtype: CacheDType = "float16"

    fills = {"values": 0.0, "indices": 0, "tail": 0.0}  # noqa: RUF012 - a constant

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        if not 1 <= self.k <= self.num_classes:
            raise ConfigurationError(
                f"`top_k` must lie between 1 and the number of classes {self.num_classes}, got {self.k}."
            )

    @property
    def _num_high_bits(self) -> int:
        return max(0, (self.num_classes - 1).bit_length() - 16)

    @property
    def _tail_dtype(self) -> CacheDType:
        return "float32" if self.dtype == "float32" else "float16"

    def num_bytes(self, num_positions: int) -> int:
        values = position_size(self.k, self.dtype) + position_size(self.num_tails, self._tail_dtype)
        return num_positions * (values + 2 * self.k) + -(-num_positions * self.k * self._num_high_bits // 8)

    def to_bytes(self, answers: Answers) -> bytes:
        codes, scales = to_codes(-answers["values"], self.dtype)
        codes[:, 1:] = codes[:, 1:] - codes[:, :-1]
        indices = answers["indices"].numpy().astype(np.uint32)
        high = (indices >> 16)[..., None] >> np.arange(self._num_high_bits, dtype=np.uint32) & 1
        tails, _ = to_codes(answers["tail"], self._tail_dtype)
        packed = np.packbits(high.astype(np.uint8)).tobytes()
        return planes(codes) + planes(indices.astype(np.uint16)) + packed + planes(tails) + scales

    def from_bytes(self, records: NDArray[np.uint8], num_positions: int) -> dict[str, Tensor]:
        cursor, shape = Cursor(records), (num_positions, self.k)
        codes = _running_sums(cursor.planes(shape, _UNSIGNED[self.dtype]))
        indices = cursor.planes(shape, np.uint16).astype(np.int64)
        if self._num_high_bits:
            bits = cursor.bits((*shape, self._num_high_bits))
            indices |= (bits.astype(np.int64) << np.arange(16, 16 + self._num_high_bits)).sum(-1)
        if indices.size and (largest := int(indices.max())) >= self.num_classes:
            raise DamagedCacheError(f"a record of a cache names class {largest}, and there are {self.num_classes}.")
        tails = cursor.planes((num_positions, self.num_tails), _UNSIGNED[self._tail_dtype])
        return {
            "tail": from_codes(tails, cursor, self._tail_dtype),
            "indices": torch.from_numpy(indices),
            "values": -from_codes(codes, cursor, self.dtype),
        }

    def description(self) -> dict[str, Any]:
        known = {"k": self.k, "num_classes": self.num_classes, "num_tails": self.num_tails}
        return {"kind": "top_k", **known, "dtype": self.dtype}


class Cursor:
    """Reads what `planes` and its like have written, one after the other, of R rows of one length.

    Args:
        records: `(R, bytes of a row)`.
    """

    def __init__(self, records: NDArray[np.uint8]) -> None:
        self._records = records
        self._place = 0

    def take(self, num_bytes: int) -> NDArray[np.uint8]:
        """The next bytes of each row."""
        self._place += num_bytes
        return self._records[:, self._place - num_bytes : self._place]

    def planes(self, shape: tuple[int, int], dtype: Any) -> NDArray[Any]:
        """The array that `planes` was given for each row, `(R, …)`."""
        size = np.dtype(dtype).itemsize
        bytes_of = self.take(math.prod(shape) * size).reshape(len(self._records), size, *shape)
        numbers = bytes_of[:, -1].astype(dtype)
        for place in reversed(range(size - 1)):
            numbers <<= 8
            numbers |= bytes_of[:, place]
        return numbers

    def bits(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """As many bits of each row, packed before, `(R, …)`."""
        number = math.prod(shape)
        return np.unpackbits(self.take(-(-number // 8)), axis=1, count=number).reshape(len(self._records), *shape)


def planes(array: NDArray[Any]) -> bytes:
    """All first bytes of the numbers, then all second ones: what is alike lies together, and compresses."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return little.view(np.uint8).reshape(-1, array.dtype.itemsize).T.tobytes()


def _running_sums(codes: NDArray[Any]) -> NDArray[Any]:
    """Over the last axis, modulo the size of the numbers; torch is faster at it than NumPy."""
    numbers = torch.from_numpy(codes if codes.itemsize == 1 else codes.view(f"i{codes.itemsize}"))
    return numbers.cumsum(-1, dtype=numbers.dtype).numpy().view(codes.dtype)


def compressed(record: bytes) -> bytes:
    """The record, by zstd where that makes it smaller."""
    smaller: bytes = _ZSTD.compress(record, asbytes=True)
    return smaller if len(smaller) < len(record) else record


def decompressed(record: Any, num_bytes: int, num_positions: int) -> bytes:
    """What `compressed` was given.

    Args:
        num_bytes: how many these are.
        num_positions: of how many positions, which an error names.

    Raises:
        DamagedCacheError: if they are not so many.
    """
    if len(record) < num_bytes:
        try:
            record = _ZSTD.decompress(record, decompressed_size=num_bytes, asbytes=True)
        except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
            raise DamagedCacheError(f"a record of a cache cannot be decompressed: {error}.") from error
    if len(record) != num_bytes:
        raise DamagedCacheError(
            f"a record of a cache has {len(record)} bytes, and {num_positions} positions take {num_bytes}."
        )
    return bytes(record)


def position_size(width: int, dtype: CacheDType) -> int:
    """Bytes of so many numbers of one position."""
    return width * np.dtype(_UNSIGNED[dtype]).itemsize + (_SCALE_SIZE if dtype == "uint8" else 0)


def to_codes(values: Tensor, dtype: CacheDType) -> tuple[NDArray[Any], bytes]:
    """Numbers `(N, W)` as unsigned ones, and what else is needed to find them again. Of numbers of one sign that do
    not fall in size, the codes do not fall either.

    Raises:
        ConfigurationError: if a number is NaN, or is finite and would not be so in this precision.
    """
    values = values.detach().to("cpu", torch.float32).contiguous()
    if dtype == "uint8":
        low, high = (values.amin(1), values.amax(1)) if values.numel() else (values.new_zeros(len(values)),) * 2
        step = (high - low) / _STEPS
        kept = (values - low[:, None]) / step.where(step > 0, 1.0)[:, None]
        is_kept = bool(values.isfinite().all())
        codes = kept.nan_to_num().round().to(torch.uint8).numpy()
        scales = torch.stack((low, step)).numpy().astype("<f4").tobytes()
    else:
        kept = values.to(getattr(torch, dtype))
        is_kept = not bool(kept.isnan().any()) and bool((kept.isinf() == values.isinf()).all())
        signed = kept.view(torch.int32 if dtype == "float32" else torch.int16).numpy()
        codes, scales = signed.view(_UNSIGNED[dtype]).copy(), b""
    if not is_kept:
        raise ConfigurationError(
            f"the teacher's answers lie between {values.min().item():.4g} and {values.max().item():.4g}, and "
            f"dtype={dtype!r} cannot keep them all. NaN comes of a teacher that computes in a precision that is too "
            "low for it; else pass `dtype='float32'`."
        )
    return codes, scales


def from_codes(codes: NDArray[Any], cursor: Cursor, dtype: CacheDType) -> Tensor:
    """The numbers `(R, N, W)` of codes, in the precision that they are kept in; of 8 bits, in float32."""
    if dtype == "uint8":
        num_rows, num_positions, _ = codes.shape
        scales = np.ascontiguousarray(cursor.take(_SCALE_SIZE * num_positions)).view("<f4")
        low, step = scales.reshape(num_rows, 2, num_positions, 1).swapaxes(0, 1)
        return torch.from_numpy(low + codes * step)
    signed = codes.view(np.int32 if dtype == "float32" else np.int16)
    return torch.from_numpy(signed).view(getattr(torch, dtype))


def check_dtype(dtype: str) -> None:
    """Refuses a precision that is not known.

    Raises:
        ConfigurationError: naming those that are.
    """
    if dtype not in get_args(CacheDType):
        raise ConfigurationError(f"`dtype` must be one of {list(get_args(CacheDType))}, got {dtype!r}.")

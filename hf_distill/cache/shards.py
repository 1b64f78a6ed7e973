"""One file of a cache: rows in Arrow's stream format, which `datasets` reads too."""

import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from hf_distill.cache.row_keys import KEY_SIZE
from hf_distill.errors import DamagedCacheError


SCHEMA = pa.schema(
    {
        "key": pa.binary(KEY_SIZE),
        "num_positions": pa.uint32(),
        "checksum": pa.uint32(),
        "answer": pa.large_binary(),
        "features": pa.large_binary(),
    }
)
ROW_FRAME_SIZE = sum(8 if pa.types.is_large_binary(field.type) else field.type.byte_width for field in SCHEMA)
"""Bytes of a row beside its answer and its features: key, number of positions, checksum, and where these end."""
MAX_BATCH_BYTES = 2**24
MAX_BATCH_ROWS = 2**16

UNREADABLE = (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError)
"""What Arrow raises for bytes that it has not written."""


class Row(NamedTuple):
    """What is kept of one row."""

    key: bytes
    num_positions: int
    answer: Any
    """Bytes, or a buffer of them."""
    features: Any = b""
    """Likewise: the hidden states, where some are kept."""

    @property
    def checksum(self) -> int:
        """CRC-32 of everything that is read of the row."""
        start = zlib.crc32(self.key + self.num_positions.to_bytes(4, "little"))
        return zlib.crc32(self.features, zlib.crc32(self.answer, start))


def write_shard(path: Path, rows: Iterable[Row]) -> None:
    """A file of these rows."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as stream:
        for batch in _batches(rows):
            columns = [[row.key for row in batch], [row.num_positions for row in batch]]
            columns += [
                [row.checksum for row in batch],
                [row.answer for row in batch],
                [row.features for row in batch],
            ]
            arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
            stream.write_batch(pa.record_batch(arrays, schema=SCHEMA))


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    num_bytes = 0
    for row in rows:
        batch.append(row)
        num_bytes += len(row.answer) + len(row.features)
        if num_bytes >= MAX_BATCH_BYTES or len(batch) == MAX_BATCH_ROWS:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


class Shard:
    """A file of rows, mapped into memory.

    Every row is checked when it is read, and the frame around the rows when the file is opened, so that a damaged file
    is found before anything that it says is believed.

    Raises:
        DamagedCacheError: if the file is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with pa.ipc.open_stream(pa.memory_map(str(path))) as stream:
                if not stream.schema.equals(SCHEMA):
                    raise DamagedCacheError(f"the shard {str(path)!r} has the columns {stream.schema.names}.")
                batches = list(stream)
            for batch in batches:
                batch.validate(full=True)
                if any(column.null_count for column in batch.columns):
                    raise DamagedCacheError(f"the shard {str(path)!r} has rows without an answer.")
        except UNREADABLE as error:
            if isinstance(error, DamagedCacheError):
                raise
            raise DamagedCacheError(f"the shard {str(path)!r} cannot be read as it was written: {error}.") from error
        self._columns = [batch.columns for batch in batches]
        self._starts: list[int] = [0, *accumulate(batch.num_rows for batch in batches)]

    def __len__(self) -> int:
        return self._starts[-1]

    def keys(self) -> Any:
        """The keys of all rows, `(N, KEY_SIZE)`, uint8."""
        views = [
            np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, KEY_SIZE)[column.offset :][: len(column)]
            for column, *_ in self._columns
        ]
        return np.concatenate([np.empty((0, KEY_SIZE), np.uint8), *views])

    def row(self, number: int) -> Row:
        """One row, checked.

        Raises:
            DamagedCacheError: if it is not as it was written.
        """
        place = bisect_right(self._starts, number) - 1
        local = number - self._starts[place]
        key, num_positions, checksum, answer, features = (column[local] for column in self._columns[place])
        row = Row(key.as_py(), num_positions.as_py(), answer.as_buffer(), features.as_buffer())
        if row.checksum != checksum.as_py():
            raise DamagedCacheError(
                f"row {number} of the shard {str(self.path)!r} has the checksum {row.checksum}, and {checksum} was "
                "written: the file is damaged. Download or build the cache again."
            )
        return row


def all_rows(shards: Iterable[Shard]) -> Iterator[Row]:
    """Every row of some shards, checked."""
    return chain.from_iterable((shard.row(number) for number in range(len(shard))) for shard in shards)

"""Finds what a teacher has said about a row."""

import hashlib
import os
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hf_distill.cache.manifest import INDEX, MANIFEST, MAX_MANIFEST_BYTES, Manifest, check_file
from hf_distill.cache.shards import UNREADABLE, Row, Shard
from hf_distill.cache.writer import INDEX_SCHEMA, partial_path
from hf_distill.errors import CacheMismatchError, DamagedCacheError


def is_cache(path: Path | str) -> bool:
    """Whether a folder is a cache, whole or begun."""
    path = Path(path)
    is_whole = (path / MANIFEST).is_file() and not (path / "config.json").exists()  # which a model's folder has
    return is_whole or partial_path(path).is_dir()


class CacheReader:
    """A cache on disk, mapped into memory: opening it costs little, however large it is.

    When it is opened, the manifest, the index and everything small are looked at whole, and of the shards the size.
    What a shard says of a row is checked when it is read. `check` looks at every byte.

    Raises:
        CacheMismatchError: if there is no cache, or one that was not finished.
        DamagedCacheError: if its files are not as they were written.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        manifest = self.path / MANIFEST
        if not manifest.is_file():
            begun = partial_path(self.path)
            what = f"was begun in {str(begun)!r} and not finished" if begun.is_dir() else "is none"
            raise CacheMismatchError(
                f"{str(path)!r} is no cache: there {what}. Call `cache_teacher` with this path, which goes on where "
                "it was."
            )
        size = manifest.stat().st_size
        if size > MAX_MANIFEST_BYTES:
            raise DamagedCacheError(f"the manifest of the cache {str(path)!r} has {size} bytes, which none has.")
        text = manifest.read_bytes()
        self.name = hashlib.sha256(text).hexdigest()[:8]
        """Tells it from other caches whose answers stand in the same batch."""
        self.manifest = Manifest.from_json(text)
        if INDEX not in self.manifest.files:
            raise CacheMismatchError(f"the cache {str(path)!r} was moved before it was finished. Build it again.")
        for name, expected in self.manifest.files.items():
            check_file(self.path, name, expected, whole=name not in self.manifest.shards)
        self._shards: dict[int, Shard] = {}
        self._starts = [0, *accumulate(self.manifest.shards.values())]
        self.records = self.manifest.records
        self.feature_records = self.manifest.feature_records

    def __reduce__(self) -> Any:
        return CacheReader, (self.path,)

    def __len__(self) -> int:
        return len(self._index[0])

    def check(self) -> None:
        """Look at every byte of every file.

        Raises:
            DamagedCacheError: if one is not as it was written.
        """
        for name, expected in self.manifest.files.items():
            check_file(self.path, name, expected, whole=True)

    def find(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        """The number of the row that has each key; −1 where none has."""
        index_high, index_low, rows = self._index
        high, low = np.frombuffer(b"".join(keys), ">u8").reshape(-1, 2).T.astype(np.uint64)
        places = np.searchsorted(index_high, high)
        found = np.full(len(keys), -1, dtype=np.int64)
        open_ = np.flatnonzero(places < len(index_high))
        while len(open_):  # more than once only if two keys share their first half
            open_ = open_[index_high[places[open_]] == high[open_]]
            is_found = index_low[places[open_]] == low[open_]
            found[open_[is_found]] = rows[places[open_[is_found]]]
            open_ = open_[~is_found]
            places[open_] += 1
            open_ = open_[places[open_] < len(index_high)]
        return found

    def row(self, number: int, key: bytes) -> Row:
        """The row of that number, which has that key.

        Raises:
            DamagedCacheError: if it is not as it was written.
        """
        place = bisect_right(self._starts, number) - 1
        if not 0 <= place < len(self.manifest.shards):
            raise DamagedCacheError(
                f"the index of the cache {str(self.path)!r} names row {number} of {self._starts[-1]}."
            )
        row = self._shard(place).row(number - self._starts[place])
        if row.key != key:
            raise DamagedCacheError(
                f"row {number} of the cache {str(self.path)!r} has the key {row.key.hex()}, and its index says "
                f"{key.hex()}. Download or build the cache again."
            )
        return row

    def _shard(self, place: int) -> Shard:
        if place not in self._shards:
            name, num_rows = list(self.manifest.shards.items())[place]
            shard = Shard(self.path / name)
            if len(shard) != num_rows:
                raise DamagedCacheError(
                    f"the shard {name} of the cache {str(self.path)!r} has {len(shard)} rows, and {num_rows} were "
                    "written."
                )
            self._shards[place] = shard
        return self._shards[place]

    @cached_property
    def _index(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        try:
            with pa.ipc.open_stream(pa.memory_map(os.fspath(self.path / INDEX))) as stream:
                if not stream.schema.equals(INDEX_SCHEMA):
                    raise DamagedCacheError(f"the index of the cache {str(self.path)!r} has other columns.")
                table = stream.read_all()
            table.validate(full=True)
            high, low, rows = (table.column(name).combine_chunks() for name in INDEX_SCHEMA.names)
            return high.to_numpy(), low.to_numpy(), rows.to_numpy()
        except UNREADABLE as error:
            if isinstance(error, DamagedCacheError):
                raise
            raise DamagedCacheError(f"the index of the cache {str(self.path)!r} cannot be read: {error}.") from error

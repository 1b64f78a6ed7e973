"""A cache is written beside the place where it will be, shard by shard, and appears there when it is whole."""

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hf_distill.cache.manifest import INDEX, MANIFEST, TEACHER, CachedFile, Manifest, library_versions
from hf_distill.cache.shards import Row, Shard, write_shard
from hf_distill.errors import CacheMismatchError
from hf_distill.whole_files import move_whole, write_whole


_SUFFIX = ".partial"
_SECONDS_BETWEEN_LOOKS = 0.2

INDEX_SCHEMA = pa.schema({"key_high": pa.uint64(), "key_low": pa.uint64(), "row": pa.int64()})
INDEX_ROW_SIZE = sum(field.type.byte_width for field in INDEX_SCHEMA)
"""Bytes of a row in the index."""


def partial_path(path: Path) -> Path:
    """Where a cache is before it is whole."""
    return path.with_name(f"{path.name}{_SUFFIX}")


def rows_per_shard_of(path: Path) -> int | None:
    """Of the cache that is there or was begun, since its shards stay as they are; None if nothing is."""
    written = (folder / MANIFEST for folder in (path, partial_path(path)) if (folder / MANIFEST).is_file())
    return next((Manifest.from_json(each.read_bytes()).rows_per_shard for each in written), None)


class CacheWriter:
    """Writes a cache so that a build that is killed at any moment can go on where it was.

    Shards are written aside and renamed when they are whole; so is the folder. What stands under its name is complete.
    Several processes may write: each its own shards, and the first one the rest.

    Args:
        path: where the cache is to be.
        manifest: what is built, without files.
        num_shards: how many shards it will have.
        is_main: whether this process makes the folder, and finishes it.

    Raises:
        CacheMismatchError: if something else was begun there.
    """

    def __init__(self, path: Path, manifest: Manifest, num_shards: int, is_main: bool = True) -> None:
        self.path = path
        self.folder = partial_path(path)
        self.manifest = manifest
        self.num_shards = num_shards
        self.is_main = is_main
        plan = self.folder / MANIFEST
        if is_main and not plan.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(plan, manifest.to_json())
        _wait_for(plan.exists)
        if differences := Manifest.from_json(plan.read_bytes()).differences(manifest):
            raise CacheMismatchError(
                f"the cache {str(path)!r} was begun before and is now to be another one; then and now differ in "
                f"{'; '.join(differences)}. Go on with what was begun, or delete {str(self.folder)!r}."
            )

    def shard_path(self, number: int) -> Path:
        """Where a shard is when it is whole."""
        return self.folder / f"shard-{number:05}.arrow"

    def is_written(self, number: int) -> bool:
        """Whether a shard is whole."""
        return self.shard_path(number).exists()

    def write(self, number: int, rows: Iterable[Row]) -> int:
        """Write one shard, and return its size in bytes."""
        path = self.shard_path(number)
        aside = path.with_suffix(".tmp")
        write_shard(aside, rows)
        move_whole(aside, path)
        return path.stat().st_size

    def finish(self, save_teacher: Callable[[Path], None]) -> None:
        """Wait for all shards, write the rest, and put the cache in its place.

        Args:
            save_teacher: writes the teacher's configuration and tokenizer into a folder.
        """
        if not self.is_main:
            _wait_for((self.path / MANIFEST).exists)
            return
        _wait_for(lambda: all(self.is_written(number) for number in range(self.num_shards)))
        shards = {path.name: Shard(path) for path in map(self.shard_path, range(self.num_shards))}
        _write_index(self.folder / INDEX, np.concatenate([shard.keys() for shard in shards.values()]))
        shutil.rmtree(self.folder / TEACHER, ignore_errors=True)
        save_teacher(self.folder / TEACHER)
        names = [*shards, INDEX, *(f"{TEACHER}/{path.name}" for path in sorted((self.folder / TEACHER).glob("*.*")))]
        complete = replace(
            self.manifest,
            versions=library_versions(),
            files={name: CachedFile.of(self.folder / name) for name in names},
            shards={name: len(shard) for name, shard in shards.items()},
        )
        for left in self.folder.glob("*.tmp"):
            left.unlink()
        write_whole(self.folder / MANIFEST, complete.to_json())
        move_whole(self.folder, self.path)


def _write_index(path: Path, keys: NDArray[np.uint8]) -> None:
    """All keys in their order, each once, with the number of the first row that has it."""
    high, low = (
        np.ascontiguousarray(half).view(">u8").ravel().astype(np.uint64) for half in (keys[:, :8], keys[:, 8:])
    )
    order = np.lexsort((np.arange(len(high)), low, high))
    high, low = high[order], low[order]
    is_first = np.ones(len(high), dtype=bool)
    is_first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    columns = [pa.array(each[is_first]) for each in (high, low, order.astype(np.int64))]
    aside = path.with_suffix(".tmp")
    with pa.OSFile(str(aside), "wb") as file, pa.ipc.new_stream(file, INDEX_SCHEMA) as stream:
        stream.write_batch(pa.record_batch(columns, schema=INDEX_SCHEMA))
    move_whole(aside, path)


def _wait_for(is_done: Callable[[], bool]) -> None:
    while not is_done():
        time.sleep(_SECONDS_BETWEEN_LOOKS)

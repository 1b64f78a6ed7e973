"""How fast a cache of ten million rows is written, opened and read, beside a small one.

    python benchmarks/cache_loading.py

Rows are synthetic: two float16 classes each, in random order when they are read, 32 at a time.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import save, seconds_and_mebibytes

from hf_distill.cache import CacheReader, CacheWriter, DenseRecords, Manifest
from hf_distill.cache.shards import Row


ROWS_PER_SHARD = 2**20
BATCH_SIZE, NUM_BATCHES = 32, 2000


def key(number: int) -> bytes:
    """Spread like a hash."""
    return (number * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big") + number.to_bytes(8, "big")


def write(folder: Path, num_rows: int) -> None:
    records = DenseRecords((2,), "float16")
    answer = records.encode({"values": torch.tensor([[1.0, -1.0]])})
    known: dict[str, Any] = {name: {} for name in ("teacher", "head", "processing", "data")}
    manifest = Manifest(
        **known,
        tokenizer=None,
        inputs=("input_ids",),
        teacher_inputs=(),
        answers=records.description(),
        rows_per_shard=ROWS_PER_SHARD,
    )
    numbers = [range(start, min(num_rows, start + ROWS_PER_SHARD)) for start in range(0, num_rows, ROWS_PER_SHARD)]
    writer = CacheWriter(folder, manifest, len(numbers))
    for number, part in enumerate(numbers):
        writer.write(number, (Row(key(each), 1, answer) for each in part))
    writer.finish(lambda path: path.mkdir())


def read(reader: CacheReader, batches: list[list[bytes]]) -> None:
    for keys in batches:
        rows = [reader.row(*each) for each in zip(reader.find(keys).tolist(), keys, strict=True)]
        reader.records.decode([row.answer for row in rows], [row.num_positions for row in rows])


def measured(num_rows: int) -> dict[str, float]:
    """Seconds of each step, and what it adds to the memory of the process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "cache")
        readers: list[CacheReader] = []
        numbers = np.random.default_rng(0).integers(0, num_rows, (NUM_BATCHES, BATCH_SIZE)).tolist()
        batches = [[key(number) for number in part] for part in numbers]
        steps: dict[str, Callable[[], Any]] = {
            "writing": lambda: write(folder, num_rows),
            "opening": lambda: readers.append(CacheReader(folder)),
            "first_epoch": lambda: read(readers[0], batches),
            "second_epoch": lambda: read(readers[0], batches),
        }
        found: dict[str, float] = {"rows": num_rows}
        for step, call in steps.items():
            found[f"{step}_seconds"], found[f"{step}_mebibytes"] = seconds_and_mebibytes(call)
            print(num_rows, step, found[f"{step}_seconds"], found[f"{step}_mebibytes"], flush=True)
        found["megabytes_on_disk"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 10_000_000])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = [measured(rows) for rows in arguments.rows]
    save("cache_loading", {"caches": results}, table(results))


def table(results: list[dict[str, float]]) -> str:
    lines = [
        "| rows | on disk, MB | written, rows/s | held meanwhile, MiB | opened, s | read at random, rows/s |",
        "|---|---|---|---|---|---|",
    ]
    for each in results:
        written = each["rows"] / each["writing_seconds"]
        rows_per_second = BATCH_SIZE * NUM_BATCHES / each["second_epoch_seconds"]
        lines.append(
            f"| {each['rows']:,} | {each['megabytes_on_disk']:,.1f} | {written:,.0f} "
            f"| {each['writing_mebibytes']:,.0f} | {each['opening_seconds']:.3f} | {rows_per_second:,.0f} |"
        )
    first = max(each["first_epoch_seconds"] - each["second_epoch_seconds"] for each in results)
    lines.append(
        f"\nShards are opened when a row of theirs is first read, which takes {first:.2f} s at most, all told."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

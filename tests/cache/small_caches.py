"""Small caches, written without any teacher."""

from pathlib import Path

import torch
from transformers import BertConfig

from hf_distill.cache import CacheWriter, DenseRecords, Manifest
from hf_distill.cache.shards import Row


RECORDS = DenseRecords((3,), "float32")


def manifest(**changes):
    known = {
        "teacher": {"class": "BertModel", "name": "a/b", "revision": None, "weights": "1f"},
        "tokenizer": None,
        "head": {"class": "SingleLabelHead", "reading": ""},
        "inputs": ("input_ids",),
        "teacher_inputs": ("input_ids", "attention_mask"),
        "processing": {"collator": "C", "options": {}, "epochs": None},
        "data": {"num_rows": 10, "fingerprint": "2e"},
        "answers": RECORDS.description(),
        "rows_per_shard": 4,
    }
    return Manifest(**{**known, **changes})


def key(number: int) -> bytes:
    return number.to_bytes(1, "big") * 16


def row(number: int, positions: int = 2) -> Row:
    values = torch.arange(positions * 3.0).view(positions, 3) + number
    return Row(key(number), positions, RECORDS.encode({"values": values}), b"states" * (number % 3))


def rows_of(shard: int) -> list[Row]:
    return [row(number) for number in range(4 * shard, min(10, 4 * shard + 4))]


def save_teacher(folder: Path) -> None:
    BertConfig().save_pretrained(folder)


def written(path: Path) -> Path:
    """A cache of ten rows in three shards."""
    writer = CacheWriter(path, manifest(), 3)
    for number in range(3):
        writer.write(number, rows_of(number))
    writer.finish(save_teacher)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

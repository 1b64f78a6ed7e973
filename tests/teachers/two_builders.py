"""Builds a cache of small shards in as many processes as there are."""

import sys
from pathlib import Path

import torch

from hf_distill.teachers import caching
from tests.tiny_models import PaddingCollator, model_for, rows_for


def main(path: Path) -> None:
    torch.set_num_threads(1)
    caching.MAX_SHARD_ROWS = 4
    teacher = model_for("single_label", 2)
    rows = rows_for("single_label", lengths=tuple(3 + number % 7 for number in range(64)))
    caching.cache_teacher(teacher, rows, path, data_collator=PaddingCollator(), batch_size=2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""How many tokens a batch is padded to, with rows of one length together and with rows at random.

    python benchmarks/length_grouping.py [--real-data DIR]

Counted, not timed: tokens with their padding, over the real ones. The drawn lengths have a mean of 24 and end at 64;
with a folder of real data sets, the sentences of SST-2 are counted in words too.
"""

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from measuring import save
from torch.utils.data import RandomSampler

from hf_distill.length_grouping import ShuffledLengthGroups


BATCH_SIZE = 32
MEAN, LONGEST = 24, 64


def drawn_lengths(number: int = 20_000) -> list[int]:
    """Of a gamma distribution, redrawn where they are longer than the longest, scaled to the mean."""
    numbers = np.random.default_rng(0).gamma(2.5, 1.0, 4 * number)
    scale = MEAN / numbers.mean()
    for _ in range(20):
        scale *= MEAN / np.mean(numbers[numbers * scale <= LONGEST] * scale)
    lengths = np.ceil(numbers[numbers * scale <= LONGEST] * scale - 0.5).clip(1)
    return lengths[:number].astype(int).tolist()


def padded(lengths: list[int], order: Iterable[int]) -> int:
    """Tokens of all batches in this order, each padded to its longest row."""
    ordered = [lengths[index] for index in order]
    batches = (ordered[start : start + BATCH_SIZE] for start in range(0, len(ordered), BATCH_SIZE))
    return sum(len(batch) * max(batch) for batch in batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real-data", default=os.environ.get("HF_DISTILL_DATA"), metavar="DIR")
    arguments = parser.parse_args()
    rows = {f"drawn, {MEAN} tokens on average, {LONGEST} at most": drawn_lengths()}
    if arguments.real_data is not None:
        sentences = Dataset.from_parquet(str(Path(arguments.real_data) / "glue_sst2" / "train.parquet"))["sentence"]
        rows["SST-2, in words"] = [len(sentence.split()) for sentence in sentences]
    results: dict[str, Any] = {}
    lines = ["| rows | mean | longest | in groups | at random | all to the longest |", "|---|---|---|---|---|---|"]
    for name, lengths in rows.items():
        tokens = {
            "groups": padded(lengths, ShuffledLengthGroups(BATCH_SIZE, lengths, seed=0)),
            "random": padded(lengths, RandomSampler(lengths, generator=torch.Generator().manual_seed(0))),
            "longest": len(lengths) * max(lengths),
        }
        results[name] = {"real": sum(lengths), **tokens}
        shares = " | ".join(f"{number / sum(lengths):.2f}" for number in tokens.values())
        lines.append(f"| {name} | {np.mean(lengths):.1f} | {max(lengths)} | {shares} |")
    save("length_grouping", results, "\n".join(lines))


if __name__ == "__main__":
    main()

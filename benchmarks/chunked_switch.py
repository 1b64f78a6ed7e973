"""From which size on the chunked loss is the faster one, and what it saves in memory.

    python benchmarks/chunked_switch.py

Vocabulary × positions, of two widths, the same on both sides, T = 2, forward and backward to hidden states and head,
as in `chunked_head.py`. The Trainer changes to the chunked loss at `SMALLEST_VOCABULARY` and `SMALLEST_NUM_POSITIONS`
of `hf_distill.chunked_training`.
"""

import argparse
import statistics
from typing import Any

import torch
from chunked_head import Measured, chunked, dense
from measuring import in_turn, ratio, save


GRID = {
    384: {
        1_000: (32, 128, 256, 512, 2048),
        4_000: (32, 128, 256, 512, 2048),
        8_000: (32, 128, 256, 512),
        16_000: (32, 128, 256, 512),
        32_000: (32, 128, 256),
    },
    1024: {8_000: (32, 128, 256, 512), 16_000: (32, 128, 256)},
}
"""Width: vocabulary: positions."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    results: list[dict[str, Any]] = []
    lines = [
        "| width | vocabulary | positions | time over whole logits' | seconds | peak memory over theirs | MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    cells = [(width, vocabulary, n) for width in GRID for vocabulary, sizes in GRID[width].items() for n in sizes]
    for width, vocab_size, num_positions in cells:
        running = {
            name: Measured(contender, vocab_size, num_positions, width)
            for name, contender in {"chunked": chunked, "whole logits": dense}.items()
        }
        for measured in running.values():
            measured()
        seconds = in_turn(running, arguments.rounds)
        memory = {name: measured.mebibytes for name, measured in running.items()}
        over, median = ratio(seconds, "chunked", "whole logits"), statistics.median(seconds["chunked"])
        share = memory["chunked"] / max(memory["whole logits"], 1.0)
        cell = {"width": width, "vocabulary": vocab_size, "positions": num_positions}
        results.append({**cell, "seconds": seconds, "peak_mebibytes": memory})
        lines.append(
            f"| {width:,} | {vocab_size:,} | {num_positions:,} | {over:.2f} | {median:.3f} | {share:.2f} | "
            f"{memory['chunked']:,.0f} |"
        )
    save("chunked_switch", {"rounds": arguments.rounds, "cells": results}, "\n".join(lines))


if __name__ == "__main__":
    main()

"""From which size on the chunked loss is the faster one, and what it saves in memory.

    python benchmarks/chunked_switch.py

Vocabulary × positions, 384 wide on both sides, T = 2, forward and backward to hidden states and head, as in
`chunked_head.py`. The Trainer changes to the chunked loss at `SMALLEST_VOCABULARY` and `SMALLEST_NUM_POSITIONS` of
`hf_distill.chunked_training`.
"""

import argparse
import statistics
from typing import Any

import torch
from chunked_head import WIDTH, Measured, chunked, dense
from measuring import in_turn, ratio, save


GRID = {
    1_000: (32, 128, 256, 512, 2048),
    4_000: (32, 128, 256, 512, 2048),
    8_000: (32, 128, 256, 512),
    16_000: (32, 128, 256, 512),
    32_000: (32, 128, 256),
}
"""Vocabulary: positions."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=WIDTH)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    results: list[dict[str, Any]] = []
    lines = [
        "| vocabulary | positions | chunked, time over that of whole logits | seconds | peak memory over it | MiB |",
        "|---|---|---|---|---|---|",
    ]
    for vocab_size, sizes in GRID.items():
        for num_positions in sizes:
            running = {
                name: Measured(contender, vocab_size, num_positions, arguments.width)
                for name, contender in {"chunked": chunked, "whole logits": dense}.items()
            }
            for measured in running.values():
                measured()
            seconds = in_turn(running, arguments.rounds)
            memory = {name: measured.mebibytes for name, measured in running.items()}
            over, median = ratio(seconds, "chunked", "whole logits"), statistics.median(seconds["chunked"])
            saved = memory["chunked"] / max(memory["whole logits"], 1.0)
            results.append({"vocabulary": vocab_size, "positions": num_positions, "seconds": seconds, "mib": memory})
            lines.append(
                f"| {vocab_size:,} | {num_positions:,} | {over:.2f} | {median:.3f} | {saved:.2f} | "
                f"{memory['chunked']:,.0f} |"
            )
    save("chunked_switch", {"rounds": arguments.rounds, "width": arguments.width, "cells": results}, "\n".join(lines))


if __name__ == "__main__":
    main()

"""Soft and hard targets of a large vocabulary: whole logits, chunks, and the bare matrix products that both need.

    python benchmarks/chunked_head.py

2,048 positions, 384 wide on both sides, T = 2, forward and backward to hidden states and head. The bare products are
the logits of both and the two gradients, of all positions at once. Memory is the most that the process held above what
it held before, gradients included.
"""

import argparse
import re
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import in_turn, ratio, save, seconds_and_mebibytes
from torch import Tensor
from torch.nn.functional import cross_entropy

from hf_distill.functional import forward_kl
from hf_distill.functional.chunked_head import LinearLogits, chunked_distillation_loss


NUM_POSITIONS, WIDTH, TEMPERATURE = 2048, 384, 2.0
VOCAB_SIZES = (32_000, 128_000, 256_000)
WHOLE_LOGITS = 7
"""Arrays of the size of the logits that the dense path holds at its peak, at least."""


def bare_products(student: LinearLogits, teacher: LinearLogits, labels: Tensor) -> None:
    with torch.no_grad():
        logits, _ = (each.hidden_states @ each.weight.t() for each in (student, teacher))
        return logits @ student.weight, logits.t() @ student.hidden_states


def dense(student: LinearLogits, teacher: LinearLogits, labels: Tensor) -> None:
    with torch.no_grad():
        teacher_logits = teacher.hidden_states @ teacher.weight.t()
    logits = student.hidden_states @ student.weight.t()
    soft = forward_kl(logits, teacher_logits, temperature=TEMPERATURE).sum()
    (0.5 * soft + 0.5 * cross_entropy(logits, labels, reduction="sum")).backward()


def chunked(student: LinearLogits, teacher: LinearLogits, labels: Tensor, **options: Any) -> None:
    chunked_distillation_loss(
        student, teacher, labels, temperature=TEMPERATURE, soft_weight=0.5, hard_weight=0.5, **options
    ).total.backward()


class Measured:
    """A contender on inputs of its own; its peak memory is that of its last call."""

    def __init__(
        self, contender: Callable[..., Any], vocab_size: int, num_positions: int = NUM_POSITIONS, width: int = WIDTH
    ) -> None:
        torch.manual_seed(0)
        sides = [(torch.randn(num_positions, width), torch.randn(vocab_size, width) * 0.05) for _ in range(2)]
        self.contender, self.teacher = contender, LinearLogits(*sides[1])
        self.student = LinearLogits(*(tensor.requires_grad_() for tensor in sides[0]))
        self.labels = torch.randint(0, vocab_size, (num_positions,))
        self.mebibytes = 0.0

    def __call__(self) -> float:
        for tensor in self.student[:2]:
            tensor.grad = None
        call = partial(self.contender, self.student, self.teacher, self.labels)
        seconds, self.mebibytes = seconds_and_mebibytes(call)
        return seconds


def fits(vocab_size: int) -> bool:
    """Whether the whole logits would."""
    available = int(re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())[1]) * 1024
    return WHOLE_LOGITS * 4 * NUM_POSITIONS * vocab_size < available


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="for the smallest vocabulary; the others have two")
    parser.add_argument("--chunk-sizes", type=int, nargs="+", default=[128])
    parser.add_argument("--vocab-sizes", type=int, nargs="+", default=VOCAB_SIZES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    contenders: dict[str, Callable[..., Any]] = {"bare products": bare_products}
    for size in arguments.chunk_sizes:
        contenders[f"chunks of {size}"] = partial(chunked, chunk_size=size)
        contenders[f"chunks of {size}, compiled"] = partial(chunked, chunk_size=size, compiled=True)
    contenders["whole logits"] = dense
    results: dict[str, Any] = {}
    lines = [
        "| vocabulary | | time, over that of the bare products | seconds | peak memory, MiB |",
        "|---|---|---|---|---|",
    ]
    for vocab_size in arguments.vocab_sizes:
        running = {
            name: Measured(contender, vocab_size)
            for name, contender in contenders.items()
            if contender is not dense or fits(vocab_size)
        }
        for name, measured in running.items():
            if "compiled" in name:
                measured()
        seconds = in_turn(running, arguments.rounds if vocab_size == arguments.vocab_sizes[0] else 2)
        memory = {name: measured.mebibytes for name, measured in running.items()}
        results[str(vocab_size)] = {"seconds": seconds, "peak_mebibytes": memory}
        for name in contenders:
            if name in running:
                over, median = ratio(seconds, name, "bare products"), statistics.median(seconds[name])
                lines.append(f"| {vocab_size:,} | {name} | {over:.2f} | {median:.1f} | {memory[name]:,.0f} |")
            else:
                lines.append(f"| {vocab_size:,} | {name} | does not fit | | |")
    save("chunked_head", {"rounds": arguments.rounds, "vocabularies": results}, "\n".join(lines))


if __name__ == "__main__":
    main()

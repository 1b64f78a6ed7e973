"""A masked language model's head at the masked positions alone, and at all of them.

    python benchmarks/masked_heads.py

BERT's heads of a student and a teacher, 384 wide over 32,000 tokens, at 2,048 positions of which 15 % are masked:
soft targets and the labels' loss where they are masked, and the gradient of the student's head and hidden states.

- all positions: logits of every position, picked where they are masked; what a model's own head does.
- masked positions: hidden states are picked first, and logits are of those alone.
- masked positions, a chunk at a time: what the Trainer does from `SMALLEST_VOCABULARY` and `SMALLEST_NUM_POSITIONS` of
  `hf_distill.chunked_training` on.

The memory is the most that the process held above what it held before. 47 MiB of it are the gradient of the head's
weight, which all three end with, however few positions there are.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from measuring import in_turn, ratio, save, seconds_and_mebibytes
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertOnlyMLMHead

from hf_distill.functional import LinearLogits, chunked_distillation_loss, forward_kl


NUM_POSITIONS, WIDTH, VOCAB_SIZE, SHARE, TEMPERATURE = 2048, 384, 32_000, 0.15, 2.0


class Heads:
    """Those of student and teacher, with what they read; the peak memory is that of the last call."""

    def __init__(self, step: Callable[["Heads"], Tensor]) -> None:
        torch.manual_seed(0)
        config = BertConfig(hidden_size=WIDTH, vocab_size=VOCAB_SIZE)
        self.student, self.teacher = BertOnlyMLMHead(config), BertOnlyMLMHead(config).requires_grad_(False)
        self.states = [torch.randn(NUM_POSITIONS, WIDTH, requires_grad=not index) for index in range(2)]
        self.index = torch.randperm(NUM_POSITIONS)[: int(SHARE * NUM_POSITIONS)]
        self.labels = torch.randint(0, VOCAB_SIZE, (len(self.index),))
        self.all_labels = torch.full((NUM_POSITIONS,), -100).index_copy(0, self.index, self.labels)
        self.step = step
        self.mebibytes = 0.0

    def __call__(self) -> float:
        self.student.zero_grad()
        self.states[0].grad = None
        seconds, self.mebibytes = seconds_and_mebibytes(lambda: self.step(self).backward())
        return seconds

    def picked(self) -> list[Tensor]:
        return [states.index_select(0, self.index) for states in self.states]


def at_all(heads: Heads) -> Tensor:
    logits = [head(states) for head, states in zip((heads.student, heads.teacher), heads.states, strict=True)]
    labels = cross_entropy(logits[0], heads.all_labels, reduction="sum")
    picked = [each[heads.index] for each in logits]
    return forward_kl(*picked, temperature=TEMPERATURE).sum() + labels


def at_masked(heads: Heads) -> Tensor:
    logits = [head(states) for head, states in zip((heads.student, heads.teacher), heads.picked(), strict=True)]
    return forward_kl(*logits, temperature=TEMPERATURE).sum() + cross_entropy(logits[0], heads.labels, reduction="sum")


def in_chunks(heads: Heads) -> Tensor:
    sides = zip((heads.student.predictions, heads.teacher.predictions), heads.picked(), strict=True)
    logits = [LinearLogits(head.transform(states), head.decoder.weight, head.decoder.bias) for head, states in sides]
    return chunked_distillation_loss(*logits, heads.labels, temperature=TEMPERATURE).total


STEPS = {
    "all positions": at_all,
    "masked positions": at_masked,
    "masked positions, a chunk at a time": in_chunks,
}


def largest_difference(contenders: dict[str, Heads]) -> float:
    """Between the gradients of all contenders, over the largest number of a gradient."""
    learned = [
        [
            heads.states[0],
            *heads.student.predictions.transform.parameters(),
            *heads.student.predictions.decoder.parameters(),
        ]
        for heads in contenders.values()
    ]
    gradients = [torch.cat([tensor.grad.flatten() for tensor in tensors]) for tensors in learned]
    return max(((each - gradients[0]).abs().max() / gradients[0].abs().max()).item() for each in gradients)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    contenders = {name: Heads(step) for name, step in STEPS.items()}
    seconds = in_turn(contenders, arguments.rounds)
    memory = {name: heads.mebibytes for name, heads in contenders.items()}
    lines = [
        "| head at | time, over that of the whole head | seconds | peak memory, over its | MiB |",
        "|---|---|---|---|---|",
    ]
    for name, each in seconds.items():
        over, median = ratio(seconds, name, "all positions"), statistics.median(each)
        share = memory[name] / memory["all positions"]
        lines.append(f"| {name} | {over:.2f} | {median:.2f} | {share:.2f} | {memory[name]:,.0f} |")
    results: dict[str, Any] = {"rounds": arguments.rounds, "seconds": seconds, "peak_mebibytes": memory}
    results["largest_difference"] = largest_difference(contenders)
    lines.append(
        f"\nTheir gradients differ by {results['largest_difference']:.0e} at most, over the largest number of one."
    )
    save("masked_heads", results, "\n".join(lines))


if __name__ == "__main__":
    main()

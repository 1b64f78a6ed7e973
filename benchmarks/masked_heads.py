"""A masked language model's head at the masked positions alone, and at all of them.

    python benchmarks/masked_heads.py

BERT's heads of a student and a teacher, 384 wide over 32,000 tokens, at 2,048 positions of which 15 % are masked:
logits of both, soft targets where they are masked, the model's own loss, and the gradient of the student's head and
hidden states.
"""

import argparse
import statistics
from typing import Any

import torch
from measuring import in_turn, ratio, save, seconds_and_mebibytes
from torch.nn.functional import cross_entropy
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertOnlyMLMHead

from hf_distill.functional import forward_kl


NUM_POSITIONS, WIDTH, VOCAB_SIZE, SHARE = 2048, 384, 32_000, 0.15


class Heads:
    """Those of student and teacher, with what they read; the peak memory is that of the last call."""

    def __init__(self, picks_first: bool) -> None:
        torch.manual_seed(0)
        config = BertConfig(hidden_size=WIDTH, vocab_size=VOCAB_SIZE)
        self.student, self.teacher = BertOnlyMLMHead(config), BertOnlyMLMHead(config).requires_grad_(False)
        self.states = [torch.randn(NUM_POSITIONS, WIDTH, requires_grad=not index) for index in range(2)]
        self.index = torch.randperm(NUM_POSITIONS)[: int(SHARE * NUM_POSITIONS)]
        self.labels = torch.randint(0, VOCAB_SIZE, (len(self.index),))
        self.all_labels = torch.full((NUM_POSITIONS,), -100).index_copy(0, self.index, self.labels)
        self.picks_first = picks_first
        self.mebibytes = 0.0

    def __call__(self) -> float:
        self.student.zero_grad()
        self.states[0].grad = None
        seconds, self.mebibytes = seconds_and_mebibytes(self.step)
        return seconds

    def step(self) -> None:
        states, heads = self.states, (self.student, self.teacher)
        if self.picks_first:
            states = [each.index_select(0, self.index) for each in states]
        logits = [head(each) for head, each in zip(heads, states, strict=True)]
        labels = cross_entropy(logits[0], self.labels if self.picks_first else self.all_labels, reduction="sum")
        if not self.picks_first:
            logits = [each[self.index] for each in logits]
        (forward_kl(*logits, temperature=2.0).sum() + labels).backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    contenders = {"all positions": Heads(picks_first=False), "masked positions": Heads(picks_first=True)}
    seconds = in_turn(contenders, arguments.rounds)
    memory = {name: heads.mebibytes for name, heads in contenders.items()}
    lines = ["| head at | time, over that of the whole head | seconds | peak memory, MiB |", "|---|---|---|---|"]
    for name, each in seconds.items():
        over, median = ratio(seconds, name, "all positions"), statistics.median(each)
        lines.append(f"| {name} | {over:.2f} | {median:.2f} | {memory[name]:,.0f} |")
    results: dict[str, Any] = {"rounds": arguments.rounds, "seconds": seconds, "peak_mebibytes": memory}
    save("masked_heads", results, "\n".join(lines))


if __name__ == "__main__":
    main()

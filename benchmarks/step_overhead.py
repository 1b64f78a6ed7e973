"""What one training step costs: DistillationTrainer, a plain Trainer subclass, and a hand-written loop.

    python benchmarks/step_overhead.py

The tiny pair has the sizes of the published BERT-tiny and BERT-mini. The minute one is so small that what surrounds
the models is most of the time: the worst case.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import torch
from measuring import difference, in_turn, ratio, save
from torch import nn
from torch.nn.functional import kl_div, log_softmax, softmax
from torch.utils.data import DataLoader
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
    get_linear_schedule_with_warmup,
    set_seed,
)

from hf_distill import DistillationTrainer, DistillationTrainingArguments


TEMPERATURE, ALPHA, BATCH_SIZE, LENGTH = 2.0, 0.5, 8, 32
WARMUP_STEPS = 5
HEADS = {"classification": BertForSequenceClassification, "masked language modelling": BertForMaskedLM}
PAIRS: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "tiny": (
        {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512},
        {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
    ),
    "minute": (
        {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64},
        {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64},
    ),
}
VOCAB_SIZES = {"tiny": 30522, "minute": 500}
STEPS = {"tiny": 8, "minute": 80}
"""Timed steps of each contender in each round."""


class PlainTrainer(Trainer):
    """What people write: twenty lines, right for one device without accumulation or padding."""

    def __init__(self, *args: Any, teacher: PreTrainedModel, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.teacher = teacher.eval()

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        outputs = model(**inputs)
        with torch.no_grad():
            teacher_logits = self.teacher(**{name: inputs[name] for name in ("input_ids", "attention_mask")}).logits
        soft = kl_div(
            log_softmax(outputs.logits / TEMPERATURE, dim=-1).flatten(0, -2),
            softmax(teacher_logits / TEMPERATURE, dim=-1).flatten(0, -2),
            reduction="batchmean",
        )
        loss = ALPHA * outputs.loss + (1 - ALPHA) * TEMPERATURE**2 * soft
        return (loss, outputs) if return_outputs else loss


class Stopwatch(TrainerCallback):
    """Times the steps after the first few, by a clock."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock, self.start = clock, 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == WARMUP_STEPS:
            self.start = self.clock()
        self.seconds_per_step = (self.clock() - self.start) / max(1, state.global_step - WARMUP_STEPS)


def pair(size: str, head: str) -> tuple[PreTrainedModel, PreTrainedModel]:
    set_seed(0)
    return tuple(HEADS[head](BertConfig(vocab_size=VOCAB_SIZES[size], **sizes)) for sizes in PAIRS[size])


def rows(size: str, head: str, count: int) -> list[dict[str, Any]]:
    tokens = torch.randint(0, VOCAB_SIZES[size], (count, LENGTH))
    masked = torch.where(torch.rand(count, LENGTH) < 0.15, tokens, -100)
    labels = tokens[:, 0] % 2 if head == "classification" else masked
    return [
        {"input_ids": row, "attention_mask": [1] * LENGTH, "labels": label}
        for row, label in zip(tokens.tolist(), labels.tolist(), strict=True)
    ]


def by_trainer(size: str, head: str, ours: bool, steps: int) -> float:
    """Seconds per step."""
    student, teacher = pair(size, head)
    stopwatch = Stopwatch()
    arguments: dict[str, Any] = {
        "output_dir": tempfile.gettempdir(),
        "max_steps": steps + WARMUP_STEPS,
        "per_device_train_batch_size": BATCH_SIZE,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 10**6,
        "disable_tqdm": True,
        "use_cpu": True,
    }
    distillation = {"temperature": TEMPERATURE, "alpha": ALPHA}
    trainer_class = DistillationTrainer if ours else PlainTrainer
    trainer_class(
        model=student,
        teacher=teacher,
        args=DistillationTrainingArguments(**arguments, **distillation) if ours else TrainingArguments(**arguments),
        train_dataset=rows(size, head, BATCH_SIZE * (steps + WARMUP_STEPS)),
        data_collator=default_data_collator,
        callbacks=[stopwatch],
    ).train()
    return stopwatch.seconds_per_step


def by_hand(size: str, head: str, steps: int) -> float:
    """Seconds per step of the same work: shuffled batches, both forwards, clipping, fused AdamW, a schedule."""
    student, teacher = pair(size, head)
    student.train()
    teacher.eval()
    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-5, weight_decay=0.0, fused=True)
    scheduler = get_linear_schedule_with_warmup(optimizer, 0, steps)
    data = rows(size, head, BATCH_SIZE * (steps + WARMUP_STEPS))
    start = 0.0
    for step, batch in enumerate(DataLoader(data, BATCH_SIZE, shuffle=True, collate_fn=default_data_collator)):
        if step == WARMUP_STEPS:
            start = time.perf_counter()
        with torch.inference_mode():
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            targets = softmax(teacher(**inputs).logits / TEMPERATURE, dim=-1).flatten(0, -2)
        outputs = student(**batch)
        scores = log_softmax(outputs.logits / TEMPERATURE, dim=-1).flatten(0, -2)
        soft = kl_div(scores, targets.clone(), reduction="batchmean")
        (ALPHA * outputs.loss + (1 - ALPHA) * TEMPERATURE**2 * soft).backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return (time.perf_counter() - start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    results: dict[str, Any] = {}
    lines = [
        "| pair | head | DistillationTrainer / plain subclass | DistillationTrainer − loop by hand | loop by hand |",
        "|---|---|---|---|---|",
    ]
    for size, head in product(PAIRS, HEADS):
        contenders = {
            "ours": partial(by_trainer, size, head, True, STEPS[size]),
            "plain": partial(by_trainer, size, head, False, STEPS[size]),
            "by hand": partial(by_hand, size, head, STEPS[size]),
        }
        figures = in_turn(contenders, arguments.rounds)
        over_plain, over_loop = ratio(figures, "ours", "plain"), difference(figures, "ours", "by hand")
        results[f"{size}, {head}"] = {"seconds_per_step": figures, "ratio": over_plain, "difference": over_loop}
        loop = statistics.median(figures["by hand"])
        lines.append(f"| {size} | {head} | {over_plain:.3f} | {1e3 * over_loop:.2f} ms | {1e3 * loop:.2f} ms |")
    save("step_overhead", {"rounds": arguments.rounds, "steps": STEPS, "pairs": results}, "\n".join(lines))


if __name__ == "__main__":
    main()

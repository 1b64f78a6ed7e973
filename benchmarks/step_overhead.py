"""What one training step costs: DistillationTrainer, a plain Trainer subclass, and a hand-written loop.

The pairs are so small that what surrounds the models is most of the time:

    python benchmarks/step_overhead.py
"""

import argparse
import tempfile
import time
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
    """Times the steps after the first few."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == WARMUP_STEPS:
            self.start = time.perf_counter()
        self.seconds_per_step = (time.perf_counter() - self.start) / max(1, state.global_step - WARMUP_STEPS)

    start = 0.0


def pair(head: str) -> tuple[PreTrainedModel, PreTrainedModel]:
    set_seed(0)
    sizes = {"vocab_size": 500, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    return tuple(HEADS[head](BertConfig(num_hidden_layers=layers, **sizes)) for layers in (1, 2))


def rows(head: str, count: int) -> list[dict[str, Any]]:
    tokens = torch.randint(0, 500, (count, LENGTH)).tolist()
    return [
        {"input_ids": row, "attention_mask": [1] * LENGTH, "labels": row[0] % 2 if head == "classification" else row}
        for row in tokens
    ]


def by_trainer(head: str, ours: bool, steps: int) -> float:
    """Seconds per step."""
    student, teacher = pair(head)
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
        train_dataset=rows(head, BATCH_SIZE * (steps + WARMUP_STEPS)),
        data_collator=default_data_collator,
        callbacks=[stopwatch],
    ).train()
    return stopwatch.seconds_per_step


def by_hand(head: str, steps: int) -> float:
    """Seconds per step of the same work: shuffled batches, both forwards, clipping, fused AdamW, a schedule."""
    student, teacher = pair(head)
    student.train()
    teacher.eval()
    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-5, weight_decay=0.0, fused=True)
    scheduler = get_linear_schedule_with_warmup(optimizer, 0, steps)
    data = rows(head, BATCH_SIZE * (steps + WARMUP_STEPS))
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
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--steps", type=int, default=60, help="timed steps of each contender in each round")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    results: dict[str, Any] = {}
    lines = [
        "| pair | DistillationTrainer / plain subclass | DistillationTrainer − loop by hand | loop by hand |",
        "|---|---|---|---|",
    ]
    for head in HEADS:
        figures = in_turn(
            {
                "ours": lambda head=head: by_trainer(head, True, arguments.steps),
                "plain": lambda head=head: by_trainer(head, False, arguments.steps),
                "by hand": lambda head=head: by_hand(head, arguments.steps),
            },
            arguments.rounds,
        )
        over_plain, over_loop = ratio(figures, "ours", "plain"), difference(figures, "ours", "by hand")
        results[head] = {"seconds_per_step": figures, "ours / plain": over_plain, "ours - by hand": over_loop}
        by_hand_median = sorted(figures["by hand"])[arguments.rounds // 2]
        lines.append(f"| {head} | {over_plain:.3f} | {1e3 * over_loop:.2f} ms | {1e3 * by_hand_median:.2f} ms |")
    save("step_overhead", {"rounds": arguments.rounds, "steps": arguments.steps, "pairs": results}, "\n".join(lines))


if __name__ == "__main__":
    main()

"""What it costs to compare layers: relations with the fast attention, and attention maps with the slow one.

    python benchmarks/feature_terms.py

A teacher of 6 layers and a student of 3, 384 wide with 12 heads, on 512 tokens a step: 8 rows of 64, 4 of 128, or 2
of 256. The terms are added to soft targets, whose step is the measure. All of them train at once and take turns after
each step, so that a machine that other programs use too is as slow for one as for the other. Time is that of the
processor, on one thread.
"""

import argparse
import statistics
import tempfile
import threading
import time
from typing import Any

import torch
from measuring import in_turn, ratio, save
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    TrainerCallback,
    default_data_collator,
    set_seed,
)

from hf_distill import AttentionMapTerm, DistillationTrainer, DistillationTrainingArguments, Objective, recipes


TOKENS, LENGTHS, VOCAB_SIZE, WARMUP_STEPS = 512, (64, 128, 256), 1000, 3
CONTENDERS = {
    "soft targets alone": Objective({"soft": (1.0, recipes.hinton(alpha=0.0))}),
    "with MiniLMv2's relations": Objective(
        {"soft": (1.0, recipes.hinton(alpha=0.0)), "relations": (1.0, recipes.minilmv2())}
    ),
    "with MiniLMv2's relations of as many heads as the models have": Objective(
        {"soft": (1.0, recipes.hinton(alpha=0.0)), "relations": (1.0, recipes.minilmv2(num_relation_heads=12))}
    ),
    "with MiniLM's relations": Objective(
        {"soft": (1.0, recipes.hinton(alpha=0.0)), "relations": (1.0, recipes.minilm())}
    ),
    "with the attention map of the last layer": Objective(
        {"soft": (1.0, recipes.hinton(alpha=0.0)), "map": (1.0, AttentionMapTerm("last"))}
    ),
    "with the attention maps of all layers": Objective(
        {"soft": (1.0, recipes.hinton(alpha=0.0)), "maps": (1.0, AttentionMapTerm("uniform"))}
    ),
}


def bert(num_hidden_layers: int) -> PreTrainedModel:
    set_seed(num_hidden_layers)
    sizes = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536, "vocab_size": VOCAB_SIZE}
    return BertForSequenceClassification(
        BertConfig(**sizes, num_hidden_layers=num_hidden_layers, attention_probs_dropout_prob=0.0)
    )


class Turns(TrainerCallback):
    """A training in a thread of its own, which does a step when it is called and says how many seconds it took."""

    def __init__(self, trainer: DistillationTrainer) -> None:
        self._is_asked, self._is_done = threading.Semaphore(0), threading.Semaphore(0)
        trainer.add_callback(self)
        threading.Thread(target=trainer.train, daemon=True).start()
        self._is_done.acquire()  # it has come to its first step

    def __call__(self) -> float:
        start = time.process_time()
        self._is_asked.release()
        self._is_done.acquire()
        return time.process_time() - start

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._is_done.release()
        self._is_asked.acquire()


def training(objective: Objective, length: int, num_steps: int) -> Turns:
    batch_size = TOKENS // length
    tokens = torch.randint(0, VOCAB_SIZE, (batch_size * num_steps, length)).tolist()
    trainer = DistillationTrainer(
        model=bert(3),
        teacher=bert(6),
        objective=objective,
        args=DistillationTrainingArguments(
            output_dir=tempfile.gettempdir(),
            max_steps=num_steps,
            per_device_train_batch_size=batch_size,
            report_to=[],
            save_strategy="no",
            logging_steps=10**6,
            disable_tqdm=True,
            use_cpu=True,
            preflight=False,
        ),
        train_dataset=[{"input_ids": row, "attention_mask": [1] * length} for row in tokens],
        data_collator=default_data_collator,
    )
    return Turns(trainer)


def seconds_per_step(length: int, rounds: int) -> dict[str, list[float]]:
    num_steps = WARMUP_STEPS + rounds + 1  # one more than are done, since the call ends where the next one begins
    trainings = {name: training(objective, length, num_steps) for name, objective in CONTENDERS.items()}
    in_turn(trainings, WARMUP_STEPS)
    return in_turn(trainings, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    figures = {length: seconds_per_step(length, arguments.rounds) for length in LENGTHS}
    first = next(iter(CONTENDERS))
    lines = [
        "| tokens a row | objective | step, over that of soft targets alone | milliseconds a step |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {length} | {name} | {ratio(seconds, name, first):.3f} | {1e3 * statistics.median(seconds[name]):.0f} |"
        for length, seconds in figures.items()
        for name in CONTENDERS
    ]
    results: dict[str, Any] = {"rounds": arguments.rounds, "seconds_per_step": figures}
    save("feature_terms", results, "\n".join(lines))


if __name__ == "__main__":
    main()

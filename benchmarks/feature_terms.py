"""What it costs to compare layers: relations with the fast attention, and attention maps with the slow one.

    python benchmarks/feature_terms.py

A teacher of 6 layers and a student of 3, 384 wide with 12 heads, on 512 tokens a step: 8 rows of 64, or 2 of 256. The
terms are added to soft targets, whose step is the measure. Time is that of the processor, on one thread.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from typing import Any

import torch
from measuring import in_turn, ratio, save
from step_overhead import WARMUP_STEPS, Stopwatch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel, default_data_collator, set_seed

from hf_distill import AttentionMapTerm, DistillationTrainer, DistillationTrainingArguments, Objective, recipes


TOKENS, LENGTHS, VOCAB_SIZE, STEPS = 512, (64, 256), 1000, 4
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


def seconds_per_step(objective: Objective, length: int) -> float:
    stopwatch, batch_size = Stopwatch(time.process_time), TOKENS // length
    number = batch_size * (STEPS + WARMUP_STEPS)
    tokens = torch.randint(0, VOCAB_SIZE, (number, length)).tolist()
    DistillationTrainer(
        model=bert(3),
        teacher=bert(6),
        objective=objective,
        args=DistillationTrainingArguments(
            output_dir=tempfile.gettempdir(),
            max_steps=STEPS + WARMUP_STEPS,
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
        callbacks=[stopwatch],
    ).train()
    return stopwatch.seconds_per_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    figures = {
        length: in_turn(
            {name: partial(seconds_per_step, objective, length) for name, objective in CONTENDERS.items()},
            arguments.rounds,
        )
        for length in LENGTHS
    }
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
    results: dict[str, Any] = {"rounds": arguments.rounds, "steps": STEPS, "seconds_per_step": figures}
    save("feature_terms", results, "\n".join(lines))


if __name__ == "__main__":
    main()

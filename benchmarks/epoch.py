"""What an epoch costs: a plain `Trainer` subclass that pads to the maximum, ours, and the student without a teacher.

    python benchmarks/epoch.py [--real-data DIR]

A teacher of 6 layers and a student of 3, both 384 wide with BERT's vocabulary, on rows of 24 tokens on average and 64
at most. With a folder of real data sets, the rows are the sentences of SST-2's validation split.
"""

import argparse
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from length_grouping import BATCH_SIZE, LONGEST, drawn_lengths, padded
from measuring import in_turn, ratio, save
from step_overhead import PlainTrainer
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from hf_distill import DistillationTrainer, DistillationTrainingArguments, cache_teacher
from hf_distill.length_grouping import ShuffledLengthGroups, num_tokens_of_rows


SIZES = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
NUM_LAYERS = {"student": 3, "teacher": 6}
NUM_ROWS = 27 * BATCH_SIZE


class GroupedTrainer(Trainer):
    """The student alone on the labels, on the very batches that ours trains it on."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        lengths = num_tokens_of_rows(self.train_dataset)
        return ShuffledLengthGroups(self._train_batch_size, lengths, seed=self.args.seed)


class Epoch(TrainerCallback):
    """The seconds from the first batch to the last step."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.start = time.perf_counter()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds = time.perf_counter() - self.start


def model(name: str) -> PreTrainedModel:
    set_seed(0)
    return BertForSequenceClassification(BertConfig(num_hidden_layers=NUM_LAYERS[name], **SIZES))


def data(real_data: str | None) -> tuple[BertTokenizer, Dataset, Dataset]:
    """A tokenizer, and rows as they are and padded to the longest length."""
    tokenizer = BertTokenizer()
    if real_data is None:
        set_seed(0)
        lengths = drawn_lengths(NUM_ROWS)
        tokens = [torch.randint(5, BertConfig().vocab_size, (length,)).tolist() for length in lengths]
        rows = {"input_ids": tokens, "label": [row[0] % 2 for row in tokens]}
    else:
        splits = (str(Path(real_data, "glue_sst2", f"{name}.parquet")) for name in ("train", "validation"))
        train, validation = map(Dataset.from_parquet, splits)
        tokenizer = tokenizer.train_new_from_iterator(train["sentence"], BertConfig().vocab_size, show_progress=False)
        validation = validation.select(range(NUM_ROWS))
        encoded = tokenizer(validation["sentence"][:], truncation=True, max_length=LONGEST)
        rows = {"input_ids": encoded["input_ids"], "label": validation["label"]}
    rows["attention_mask"] = [[1] * len(row) for row in rows["input_ids"]]
    as_they_are = Dataset.from_dict(rows)
    whole = tokenizer.pad(rows, padding="max_length", max_length=LONGEST)
    return tokenizer, as_they_are, Dataset.from_dict(dict(whole))


def epoch(kind: type[Trainer], rows: Dataset, tokenizer: BertTokenizer | None = None, **options: Any) -> float:
    """Seconds of one epoch."""
    stopwatch = Epoch()
    arguments: dict[str, Any] = {
        "output_dir": tempfile.gettempdir(),
        "num_train_epochs": 1,
        "per_device_train_batch_size": BATCH_SIZE,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    ours = issubclass(kind, DistillationTrainer)
    kind(
        model=model("student"),
        args=DistillationTrainingArguments(preflight=False, **arguments) if ours else TrainingArguments(**arguments),
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[stopwatch],
        **options,
    ).train()
    return stopwatch.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real-data", default=os.environ.get("HF_DISTILL_DATA"), metavar="DIR")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer, rows, padded_rows = data(arguments.real_data)
    teacher = model("teacher")
    folder = Path(tempfile.mkdtemp()) / "answers"
    start = time.perf_counter()
    cache_teacher(teacher, rows, folder, processing_class=tokenizer)
    building = time.perf_counter() - start
    figures = in_turn(
        {
            "plain subclass": partial(epoch, PlainTrainer, padded_rows, teacher=teacher),
            "ours": partial(epoch, DistillationTrainer, rows, tokenizer, teacher=teacher),
            "ours, cached": partial(epoch, DistillationTrainer, rows, tokenizer, teacher=folder),
            "student alone": partial(epoch, GroupedTrainer, rows, tokenizer),
        },
        arguments.rounds,
    )
    ratios = {
        f"{name} / {other}": ratio(figures, name, other)
        for name, other in (
            ("ours", "plain subclass"),
            ("ours, cached", "plain subclass"),
            ("student alone", "plain subclass"),
            ("ours, cached", "student alone"),
        )
    }
    lengths = num_tokens_of_rows(rows)
    order = ShuffledLengthGroups(BATCH_SIZE, lengths, seed=42)
    known = {
        "rows": len(rows),
        "mean_length": statistics.mean(lengths),
        "longest": max(lengths),
        "tokens_in_groups / tokens_padded": padded(lengths, order) / (LONGEST * len(rows)),
    }
    lines = ["| an epoch | seconds | / plain subclass | / student alone |", "|---|---|---|---|"]
    for name, seconds in figures.items():
        shares = " | ".join(f"{ratio(figures, name, other):.3f}" for other in ("plain subclass", "student alone"))
        lines.append(f"| {name} | {statistics.median(seconds):.1f} | {shares} |")
    source = "drawn lengths" if arguments.real_data is None else "SST-2's validation split"
    lines.append(
        f"\n{len(rows)} rows of {source}, {known['mean_length']:.1f} tokens on average and {max(lengths)} at most; in "
        f"groups of one length {known['tokens_in_groups / tokens_padded']:.3f} of the tokens padded to {LONGEST}. "
        f"Caching the answers took {building:.1f} s, once."
    )
    results = {**known, "source": source, "caching_seconds": building, "rounds": arguments.rounds, "ratios": ratios}
    save("epoch", {**results, "seconds": figures}, "\n".join(lines))


if __name__ == "__main__":
    main()

"""What each process of `test_two_processes_share_a_stream` runs; and trainers over streams."""

import os
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import set_seed
from transformers.testing_utils import CaptureLogger
from transformers.utils import logging

from tests.test_resume import StopAt
from tests.tiny_models import model_for, rows_for
from tests.tiny_trainers import trainer_for


LAST_STEP, ROWS_OF_A_STEP = 20, 4


def numbered_rows(number):
    """Rows of one length, so that batches of two processes fit together. Their first two tokens are their number."""
    rows = rows_for("single_label", lengths=(5,) * number)
    return [{**row, "input_ids": [3 + i // 8, 3 + i % 8, *row["input_ids"][2:]]} for i, row in enumerate(rows)]


def numbers_of(batch):
    return [8 * (first - 3) + second - 3 for first, second in batch["input_ids"][:, :2].tolist()]


def streaming_trainer(output_dir, stream, dropout=0.1, **changes):
    """Twenty steps of two batches of two rows."""
    set_seed(0)
    student = model_for("single_label", 1)
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    options = {"max_steps": LAST_STEP, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    options |= {"save_strategy": "steps", "save_steps": 100, "preflight": False}
    return trainer_for(output_dir, student=student, rows=stream, **{**options, **changes})


def main(output_dir: Path, dispatches: bool) -> None:
    options = {"accelerator_config": {"dispatch_batches": dispatches}, "dropout": 0.0, "save_steps": 6}
    options |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "optim": "sgd", "max_steps": 8}

    def trainer(run):
        stream = Dataset.from_list(numbered_rows(32)).to_iterable_dataset(num_shards=4)
        return streaming_trainer(output_dir / run, stream, **options)

    whole = trainer("whole")
    rows = [number for batch in whole.get_train_dataloader() for number in numbers_of(batch)]
    whole.train()
    first = trainer("parts")
    first.add_callback(StopAt(6))
    first.train()
    resumed = trainer("parts")
    resumed.train(resume_from_checkpoint=True)
    found = {"rows of a pass": rows, "whole": whole.model.state_dict(), "resumed": resumed.model.state_dict()}
    with CaptureLogger(logging.get_logger("hf_distill.evaluation")) as said:
        found["metrics"] = whole.evaluate(Dataset.from_list(numbered_rows(11)).to_iterable_dataset())
    found["said"] = said.out
    torch.save(found, output_dir / f"rank{os.environ['RANK']}.pt")
    sys.stdout.flush()
    os._exit(0)  # as in two_processes.py


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "1")

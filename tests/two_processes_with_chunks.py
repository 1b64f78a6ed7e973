"""What each process of `test_two_processes_equal_one` runs: one step whose logits are never built."""

import os
import sys
from pathlib import Path

import torch
from transformers import BertForMaskedLM

from hf_distill import chunked_training
from tests.gradients import recorded_run
from tests.tiny_models import bert, rows_for


def main(output_dir: Path) -> None:
    chunked_training.SMALLEST_VOCABULARY = chunked_training.SMALLEST_NUM_POSITIONS = 1
    student, teacher = bert(BertForMaskedLM, 1), bert(BertForMaskedLM, 2)
    (gradients,), (log,), trainer = recorded_run(output_dir, student, teacher, rows_for("masked"), 4, preflight=False)
    found = {"gradients": gradients, "log": log, "is_chunked": bool(trainer._heads_are_chunked)}
    torch.save(found, output_dir / f"rank{trainer.args.process_index}.pt")
    trainer.end()
    sys.stdout.flush()
    os._exit(0)  # as in two_processes.py


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What each process of `test_two_processes_equal_the_reference` runs: one step and one evaluation."""

import os
import sys
from pathlib import Path

import torch

from tests.gradients import recorded_run
from tests.tiny_models import model_for, rows_for


def main(output_dir: Path, head: str, batch_size: int, accumulation: int) -> None:
    student, teacher, rows = model_for(head, 1), model_for(head, 2), rows_for(head)
    (gradients,), (log,), trainer = recorded_run(output_dir, student, teacher, rows, batch_size, accumulation)
    trainer.args.report_agreement = True
    metrics = trainer.evaluate(rows[:5])  # 5 rows over 2 processes: some are repeated to fill up the last batch
    rank = trainer.args.process_index
    torch.save({"gradients": gradients, "log": log, "metrics": metrics}, output_dir / f"rank{rank}.pt")
    trainer.end()
    sys.stdout.flush()
    os._exit(0)  # seen once in 60 runs: the interpreter's own exit waits forever for a thread of gloo (torch 2.13.0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))

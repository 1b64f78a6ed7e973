"""What each process of the tests on two processes in `test_feature_training` runs: one step."""

import os
import sys
from pathlib import Path

import torch

from tests.gradients import GradientRecorder
from tests.test_feature_training import layers_only, learned_beside_the_student, trainer_of
from tests.tiny_trainers import loss_logs


OBJECTIVES = {"layers": layers_only, "learned": learned_beside_the_student}


def main(output_dir: Path, batch_size: int, accumulation: int, objective: str) -> None:
    recorder = GradientRecorder()
    trainer = trainer_of(
        output_dir,
        dtype=torch.float64,
        objective=OBJECTIVES[objective](),
        callbacks=[recorder],
        learning_rate=0.0,
        max_steps=1,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
    )
    trainer.train()
    rank = trainer.args.process_index
    torch.save({"gradients": recorder.steps[0], "log": loss_logs(trainer)[0]}, output_dir / f"rank{rank}.pt")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])

"""What each process of `test_training_goes_on_with_another_number_of_processes` runs: up to a step, or on from it."""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from tests.architectures import model_of
from tests.ten_steps import BATCH_SIZE, every_family
from tests.test_feature_training import trainer_of
from tests.tiny_models import rows_for
from tests.tiny_trainers import loss_logs


class StopAt(TrainerCallback):
    """Ends training with a checkpoint, as a preemption does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = control.should_save = state.global_step == self.step


def trained(output_dir: Path, *, stop_at: int = 10, resume: bool = False) -> dict[str, Any]:
    """Weights and logs of as many processes as there are, in which dropout and the order of rows play no part."""
    trainer = trainer_of(
        output_dir,
        student=model_of("bert", 2).float(),
        teacher=model_of("bert", 4, width=24).float(),
        objective=every_family(),
        rows=rows_for("single_label", (3, 9, 4, 7, 5, 8, 6, 4, 9, 3, 5, 8, 7, 6, 4, 9, 3, 3, 9, 8, 5, 7, 6, 4)),
        max_steps=10,
        per_device_train_batch_size=BATCH_SIZE // int(os.environ.get("WORLD_SIZE", 1)),
        learning_rate=0.005,
        save_strategy="no",
        callbacks=[StopAt(stop_at)],
    )
    trainer.train(resume_from_checkpoint=resume)
    return {"weights": trainer.model.state_dict(), "logs": loss_logs(trainer)}


def main(output_dir: Path, stop_at: int, resume: bool) -> None:
    found = trained(output_dir, stop_at=stop_at, resume=resume)
    torch.save(found, output_dir / f"rank{os.environ['RANK']}.pt")
    sys.stdout.flush()
    os._exit(0)  # gloo may keep the interpreter from ending


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "resume")

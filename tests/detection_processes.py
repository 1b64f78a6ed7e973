"""What each process of `test_two_processes_equal_one` runs: a step and an evaluation with labels, and a gradient."""

import os
import sys
from pathlib import Path

import torch

from hf_distill import recipes
from tests.tiny_detection_trainers import detection_trainer, recorded_gradient
from tests.tiny_detectors import detector, images_with_objects


def main(output_dir: Path) -> None:
    options = {"learning_rate": 0.0, "max_steps": 1, "per_device_train_batch_size": 2, "per_device_eval_batch_size": 1}
    objective = recipes.hungarian_matching()
    trainer = detection_trainer(
        output_dir, detector("detr"), detector("detr", 2), "detr", objective=objective, **options
    )
    trainer.train()
    metrics = trainer.evaluate(images_with_objects()[:3])
    gradients, _ = recorded_gradient(
        output_dir, detector("detr"), detector("detr", 2), "detr", per_device_train_batch_size=2
    )
    torch.save({"metrics": metrics, "gradients": gradients}, output_dir / f"rank{trainer.args.process_index}.pt")
    trainer.end()
    sys.stdout.flush()
    os._exit(0)  # as in two_processes.py


if __name__ == "__main__":
    main(Path(sys.argv[1]))

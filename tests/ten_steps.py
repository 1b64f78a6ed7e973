"""What each process of `tests/test_processes.py` runs: ten steps with terms of every family."""

import os
import sys
from pathlib import Path

import torch

from hf_distill import Objective
from hf_distill.terms import (
    AttentionMapTerm,
    AttentionScoreTerm,
    DecoupledTerm,
    HardLabelTerm,
    HiddenStateTerm,
    RelationTerm,
    SoftTargetTerm,
    UniversalLogitTerm,
)
from tests.test_feature_training import trainer_of
from tests.tiny_models import rows_for
from tests.tiny_trainers import loss_logs


BATCH_SIZE = 8


def every_family() -> Objective:
    """All but those that compare rows with each other, since these depend on how a batch is split."""
    terms = {
        "labels": HardLabelTerm(),
        "soft": SoftTargetTerm(temperature=2.0),
        "target": DecoupledTerm(),
        "sorted": UniversalLogitTerm(),
        "hidden": HiddenStateTerm(),
        "pooled": HiddenStateTerm(pooled="mean"),
        "relations": RelationTerm(num_relation_heads=4),
        "scores": AttentionScoreTerm(layer_map=[(1, 2)]),
        "maps": AttentionMapTerm(layer_map=[(2, 4)]),
    }
    return Objective({name: (1.0, term) for name, term in terms.items()})


def trained(output_dir: Path, num_processes: int):
    """Weights, learned parts and logs after ten steps of eight rows of unequal length."""
    lengths = (3, 9, 4, 7, 5, 8, 6, 4, 9, 3, 5, 8, 7, 6, 4, 9, 3, 3, 9, 8, 5, 7, 6, 4)
    trainer = trainer_of(
        output_dir,
        objective=every_family(),
        rows=rows_for("single_label", lengths),
        max_steps=10,
        per_device_train_batch_size=BATCH_SIZE // num_processes,
        optim="sgd",
        learning_rate=0.02,
        max_grad_norm=1.0,
    )
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    trainer.train()
    parts = trainer._readers[0].parts.state_dict()
    return {
        "before": before,
        "weights": trainer.model.state_dict() | {f"learned {name}": part for name, part in parts.items()},
        "logs": loss_logs(trainer),
    }


def main(output_dir: Path) -> None:
    found = trained(output_dir, int(os.environ["WORLD_SIZE"]))
    torch.save(found, output_dir / f"rank{os.environ['RANK']}.pt")
    sys.stdout.flush()
    os._exit(0)  # as in two_processes.py


if __name__ == "__main__":
    main(Path(sys.argv[1]))

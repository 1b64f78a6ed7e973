"""What each process of `tests/test_processes.py` runs: ten steps with terms of every family."""

import copy
import os
import sys
from pathlib import Path

import torch
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers.distributed import DistributedConfig

from hf_distill import DistillationTrainer, Objective
from hf_distill.terms import (
    AttentionMapTerm,
    AttentionScoreTerm,
    ContrastiveTerm,
    DecoupledTerm,
    HardLabelTerm,
    HiddenStateTerm,
    IntraClassTerm,
    RelationTerm,
    RowRelationTerm,
    SoftTargetTerm,
    UniversalLogitTerm,
    VariationalTerm,
)
from tests.architectures import model_of
from tests.test_feature_training import trainer_of
from tests.tiny_models import rows_for
from tests.tiny_trainers import loss_logs


BATCH_SIZE = 8
BLOCKS = {"bert.encoder.layer.*": "free_full_weight"}


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
        "variational": VariationalTerm(),
    }
    return Objective({name: (1.0, term) for name, term in terms.items()})


def between_rows() -> Objective:
    """Those that compare the rows of a micro-batch with each other."""
    terms = {"contrast": ContrastiveTerm(), "rows": RowRelationTerm(), "classes": IntraClassTerm()}
    return Objective({name: (1.0, term) for name, term in terms.items()})


OBJECTIVES = {"every_family": every_family, "between_rows": between_rows}


class ShardingTrainer(DistillationTrainer):
    """Shards the student with its learned parts, and the teacher, where Accelerate would on GPUs."""

    def __init__(self, model, *args, **kwargs):
        model._is_distributed_loading_by_transformers = True  # else they would be wrapped in DDP
        super().__init__(model, *args, **kwargs)
        self.teacher.shard()

    def _prepare_for_training(self, *args, **kwargs):
        for block in self.model.bert.encoder.layer:
            fully_shard(block)
        fully_shard(self.model)
        assert all(isinstance(parameter, DTensor) for parameter in self.model.parameters())
        return super()._prepare_for_training(*args, **kwargs)


def loaded_in_shards(model, folder: Path):
    """The model as Transformers loads it, where no process holds it whole."""
    if os.environ["RANK"] == "0":
        model.save_pretrained(folder)
    torch.distributed.barrier()
    config = DistributedConfig(fsdp_size=int(os.environ["WORLD_SIZE"]), fsdp_plan=BLOCKS)
    return type(model).from_pretrained(folder, distributed_config=config)


def trained(
    output_dir: Path, num_processes: int = 1, way: str = "ddp", objective: str = "every_family", accumulation: int = 1
):
    """Weights, learned parts and logs after ten steps of eight rows of unequal length."""
    student, teacher = model_of("bert", 2).float(), model_of("bert", 4, width=24).float()
    before = copy.deepcopy(student.state_dict())
    if way in ("loaded", "teacher_loaded"):
        torch.distributed.init_process_group("gloo")
        teacher = loaded_in_shards(teacher, output_dir / "teacher")
        student = loaded_in_shards(student, output_dir / "student") if way == "loaded" else student
    lengths = (3, 9, 4, 7, 5, 8, 6, 4, 9, 3, 5, 8, 7, 6, 4, 9, 3, 3, 9, 8, 5, 7, 6, 4)
    trainer = trainer_of(
        output_dir,
        student=student,
        teacher=teacher,
        trainer_class=ShardingTrainer if way == "sharded" else DistillationTrainer,
        objective=OBJECTIVES[objective](),
        rows=rows_for("single_label", lengths),
        max_steps=10,
        per_device_train_batch_size=BATCH_SIZE // num_processes // accumulation,
        gradient_accumulation_steps=accumulation,
        optim="sgd",
        learning_rate=0.02,
        max_grad_norm=1.0,
    )
    trainer.train()
    parts = trainer._readers[0].parts.state_dict()
    if way != "sharded":  # where Accelerate would gather what is saved
        trainer.save_model(output_dir / "saved")
    weights = trainer.model.state_dict() | {f"learned {name}": part for name, part in parts.items()}
    whole = {name: w.full_tensor() if isinstance(w, DTensor) else w for name, w in weights.items()}
    return {"before": before, "weights": whole, "logs": loss_logs(trainer)}


def main(output_dir: Path, way: str, objective: str) -> None:
    found = trained(output_dir, int(os.environ["WORLD_SIZE"]), way, objective)
    torch.save(found, output_dir / f"rank{os.environ['RANK']}.pt")
    sys.stdout.flush()
    os._exit(0)  # as in two_processes.py


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])

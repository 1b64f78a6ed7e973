"""What each process of `test_a_sharded_teacher_gives_the_same_answers` runs."""

import os
import sys
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from hf_distill import OnlineTeacher, head_of
from tests.tiny_models import PaddingCollator, model_for, rows_for


def main(output_dir: Path) -> None:
    torch.distributed.init_process_group("gloo")
    model = model_for("causal", 2)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    teacher = OnlineTeacher(model, head_of(model))
    teacher.shard()
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    held = sum(parameter.to_local().numel() for parameter in model.parameters())
    batch = PaddingCollator()(rows_for("causal"))
    logits = [teacher.signals(batch).logits for _ in range(2)]
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())  # nothing stays gathered
    rank = torch.distributed.get_rank()
    torch.save({"logits": logits, "share": held / num_parameters}, output_dir / f"rank{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

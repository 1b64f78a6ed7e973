"""What each process of `test_sharded_teachers_are_asked_on_all_processes` runs."""

import os
import sys
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from hf_distill import OnlineTeacher, RoutedTeacher, head_of
from tests.tiny_models import PaddingCollator, model_for, rows_for


def main(output_dir: Path) -> None:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    models = {"de": model_for("causal", 2), "fr": model_for("causal", 3)}
    teacher = RoutedTeacher(
        {route: OnlineTeacher(model, head_of(model)) for route, model in models.items()}, column="language"
    )
    for member in teacher.members:
        member.shard()
    assert all(isinstance(weight, DTensor) for model in models.values() for weight in model.parameters())
    batch = {**PaddingCollator()(rows_for("causal")), "language": [("de", "fr")[rank]] * 8}
    torch.save(teacher.signals(batch).logits, output_dir / f"rank{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What each process of `tests/test_sharding.py` runs: teachers of many architectures, sharded and asked."""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from hf_distill import OnlineTeacher, head_of
from hf_distill.sharding import is_sharded
from tests.test_sharding import batch_for, teachers


def gathered(model: nn.Module) -> int:
    """How many weights are there as a whole."""
    return sum(weight.numel() for weight in model.parameters() if not isinstance(weight, DTensor))


def asked(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    size = gathered(model)
    teacher = OnlineTeacher(model, head_of(model))
    teacher.shard()
    assert is_sharded(model)
    assert gathered(model) == 0
    share = sum(weight.to_local().numel() for weight in model.parameters()) / size
    largest = []
    for module in model.modules():
        module.register_forward_pre_hook(lambda *_: largest.append(gathered(model)))
    logits = [teacher.signals(batch).logits for _ in range(2)]
    assert gathered(model) == 0
    return {"logits": logits, "share": share, "largest": max(largest)}


def main(output_dir: Path) -> None:
    torch.distributed.init_process_group("gloo")
    found = {name: asked(model, batch_for(name)) for name, model in teachers()}
    torch.save(found, output_dir / f"rank{os.environ['RANK']}.pt")
    torch.distributed.barrier()
    os._exit(0)  # gloo may keep the interpreter from ending


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What each process of `test_a_sharded_student_has_the_same_gradients` runs."""

import os
import sys
from pathlib import Path

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from hf_distill.feature_reading.learned_parts import load_whole_state, whole_state
from tests.feature_reading.test_sharding import loss_of, student_with_reader


def state_of_all(reader):
    return {name: part.full_tensor() for name, part in reader.parts.state_dict().items()}


def main(output_dir: Path) -> None:
    torch.distributed.init_process_group("gloo")
    model, reader = student_with_reader()
    for block in model.bert.encoder.layer:
        fully_shard(block)
    fully_shard(model)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    loss_of(model, reader).backward()
    gradients = {name: p.grad.full_tensor() for name, p in model.named_parameters() if p.grad is not None}
    of_student = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    set_model_state_dict(model, dict(of_student), options=StateDictOptions(full_state_dict=True, strict=True))
    state = whole_state(reader.parts)
    doubled = {name: 2 * part for name, part in state_of_all(reader).items()}
    load_whole_state(reader.parts, doubled)
    assert all(torch.equal(part, doubled[name]) for name, part in state_of_all(reader).items())
    rank = torch.distributed.get_rank()
    saved = {"gradients": gradients, "parts": state, "names": list(of_student)}
    torch.save(saved, output_dir / f"rank{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What a process holds when student and teacher are sharded by FSDP2 over one, two and four gloo processes.

    python benchmarks/sharding.py

Two steps of AdamW on the student's divergence from the teacher, at 4 rows of 16 tokens. Weights are made where they
are held, so that no process ever has a model whole. The peak is that of the process above what it held with all
libraries loaded.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from measuring import save, seconds_and_mebibytes
from torch import nn
from torch.distributed.fsdp import fully_shard
from transformers import BertConfig, BertForSequenceClassification

from hf_distill import OnlineTeacher, head_of, memory_estimate
from hf_distill.functional import forward_kl


SIZES = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "vocab_size": 8000}
LAYERS = {"student": 4, "teacher": 12}
NUMBERS = (1, 2, 4)


def model_of(who: str) -> nn.Module:
    """On the device `meta`, so without weights."""
    with torch.device("meta"):
        return BertForSequenceClassification(BertConfig(**SIZES, num_hidden_layers=LAYERS[who]))


def with_weights(model: nn.Module) -> nn.Module:
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)
    return model


def two_steps(held: dict[str, float]) -> None:
    teacher = OnlineTeacher(model_of("teacher"), head_of(model_of("teacher")))
    teacher.shard()
    with_weights(teacher.model)
    student = model_of("student")
    for block in student.bert.encoder.layer:
        fully_shard(block)
    fully_shard(student)
    with_weights(student)
    optimizer = torch.optim.AdamW(student.parameters(), foreach=False)
    inputs = {"input_ids": torch.randint(0, 8000, (4, 16)), "token_type_ids": torch.zeros(4, 16, dtype=torch.long)}
    inputs |= {"position_ids": torch.arange(16)[None], "attention_mask": torch.ones(4, 16, dtype=torch.long)}
    for _ in range(2):
        forward_kl(student(**inputs).logits, teacher.signals(inputs).logits, temperature=2.0).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    for who, model in (("student", student), ("teacher", teacher.model)):
        held[who] = sum(p.to_local().nbytes for p in model.parameters()) / 2**20


def of_this_process(output: Path) -> None:
    torch.distributed.init_process_group("gloo")
    torch.set_num_threads(1)
    held: dict[str, float] = {}
    _, held["peak"] = seconds_and_mebibytes(lambda: two_steps(held))
    (output / os.environ["RANK"]).write_text(json.dumps(held))
    torch.distributed.barrier()
    os._exit(0)  # gloo may keep the interpreter from ending


def largest(number: int) -> dict[str, float]:
    """Of all processes, the most that one holds, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={number}"]
        subprocess.run([*command, __file__, "--of-this-process", folder], check=True)
        found = [json.loads(path.read_text()) for path in Path(folder).iterdir()]
    return {name: max(each[name] for each in found) for name in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of-this-process", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.of_this_process is not None:
        return of_this_process(arguments.of_this_process)
    held = {number: largest(number) for number in NUMBERS}
    lines = ["| processes | student's weights, MiB | teacher's weights, MiB | counted, MiB | peak memory, MiB |"]
    lines.append("|---|---|---|---|---|")
    results: dict[str, Any] = {}
    for number, each in held.items():
        counted = memory_estimate(model_of("student"), [model_of("teacher")], num_shards=number).total / 2**20
        results[str(number)] = {**each, "counted": counted}
        cells = (each["student"], each["teacher"], counted, each["peak"])
        lines.append(f"| {number} | " + " | ".join(f"{cell:,.0f}" for cell in cells) + " |")
    return save("sharding", {"processes": results}, "\n".join(lines))


if __name__ == "__main__":
    main()

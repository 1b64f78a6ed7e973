"""What a process holds when student and teacher are sharded by FSDP2 over one, two and four gloo processes.

    python benchmarks/sharding.py

Two steps of AdamW on the student's divergence from the teacher, at 4 rows of 16 tokens. Weights are made where they
are held, so that no process ever has a model whole. Three peaks are measured: of all tensors together; of resident
memory, above what it was with all libraries loaded; and the same where glibc gives back at once what is let go
(`MALLOC_TRIM_THRESHOLD_`). By default it keeps freed blocks of up to 32 MiB, in an arena for each thread.
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
from measuring import mebibytes_of_tensors, save, seconds_and_mebibytes
from torch import nn
from torch.distributed.fsdp import fully_shard
from transformers import BertConfig, BertForSequenceClassification

from hf_distill import OnlineTeacher, head_of, memory_estimate
from hf_distill.functional import forward_kl


SIZES = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096, "vocab_size": 8000}
LAYERS = {"student": 8, "teacher": 24}
NUMBERS = (1, 2, 4)
MEASURES = {"tensors": {}, "resident": {}, "resident, given back": {"MALLOC_TRIM_THRESHOLD_": "131072"}}
"""What is measured, and what is set for it."""


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
    for block in (student.bert.embeddings, *student.bert.encoder.layer):
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


def of_this_process(measure: str, output: Path) -> None:
    torch.distributed.init_process_group("gloo")
    torch.set_num_threads(1)
    held: dict[str, float] = {}
    if measure == "tensors":
        held[measure] = mebibytes_of_tensors(lambda: two_steps(held))
    else:
        _, held[measure] = seconds_and_mebibytes(lambda: two_steps(held))
    (output / os.environ["RANK"]).write_text(json.dumps(held))
    torch.distributed.barrier()
    os._exit(0)  # gloo may keep the interpreter from ending


def largest(number: int, measure: str) -> dict[str, float]:
    """Of all processes, the most that one holds, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={number}"]
        command += [__file__, "--measure", measure, "--output", folder]
        subprocess.run(command, check=True, env={**os.environ, **MEASURES[measure]})
        found = [json.loads(path.read_text()) for path in Path(folder).iterdir()]
    return {name: max(each[name] for each in found) for name in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        return of_this_process(arguments.measure, arguments.output)
    lines = ["| processes | student's weights, MiB | teacher's weights, MiB | counted, MiB | tensors at most, MiB "]
    lines[0] += "| resident at most, MiB | resident, given back at once, MiB |"
    lines.append("|---|---|---|---|---|---|---|")
    results: dict[str, Any] = {}
    for number in NUMBERS:
        held = {name: peak for measure in MEASURES for name, peak in largest(number, measure).items()}
        counted = memory_estimate(model_of("student"), [model_of("teacher")], num_shards=number).total / 2**20
        results[str(number)] = {**held, "counted": counted}
        cells = (held["student"], held["teacher"], counted, *(held[measure] for measure in MEASURES))
        lines.append(f"| {number} | " + " | ".join(f"{cell:,.0f}" for cell in cells) + " |")
    return save("sharding", {"sizes": SIZES, "layers": LAYERS, "processes": results}, "\n".join(lines))


if __name__ == "__main__":
    main()

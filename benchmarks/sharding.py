"""What a process holds when student and teacher are sharded by FSDP2 over one, two and four gloo processes.

    python benchmarks/sharding.py

Two steps of AdamW on the student's divergence from the teacher, at 4 rows of 16 tokens. Weights are made where they
are held, so that no process ever has a model whole. The peak is that of resident memory, above what it was with all
libraries loaded. It is measured twice: as glibc has it, which keeps freed blocks of up to 32 MiB in an arena of each
thread, and where it gives them back at once (`MALLOC_TRIM_THRESHOLD_`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from measuring import save, seconds_and_mebibytes
from torch import nn
from torch.distributed.fsdp import fully_shard
from transformers import BertConfig, BertForSequenceClassification

from hf_distill import OnlineTeacher, head_of, memory_estimate
from hf_distill.functional import forward_kl


SIZES = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096, "vocab_size": 8000}
LAYERS = {"student": 8, "teacher": 24}
NUMBERS = (1, 2, 4)
PEAKS: dict[str, dict[str, str]] = {"peak": {}, "peak, given back": {"MALLOC_TRIM_THRESHOLD_": "131072"}}
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


def of_this_process(peak: str, output: Path) -> None:
    torch.distributed.init_process_group("gloo")
    torch.set_num_threads(1)
    held: dict[str, float] = {}
    _, held[peak] = seconds_and_mebibytes(lambda: two_steps(held))
    (output / os.environ["RANK"]).write_text(json.dumps(held))
    torch.distributed.barrier()
    os._exit(0)  # gloo may keep the interpreter from ending


def largest(number: int, peak: str) -> dict[str, float]:
    """Of all processes, the most that one holds, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={number}"]
        command += [__file__, "--peak", peak, "--output", folder]
        subprocess.run(command, check=True, env={**os.environ, **PEAKS[peak]})
        found = [json.loads(path.read_text()) for path in Path(folder).iterdir()]
    return {name: max(each[name] for each in found) for name in found[0]}


def table(processes: dict[str, dict[str, float]]) -> str:
    lines = ["| processes | student's weights, MiB | teacher's weights, MiB | counted, MiB "]
    lines[0] += "| peak where memory is given back at once, MiB | peak, MiB |"
    lines.append("|---|---|---|---|---|---|")
    for number, held in processes.items():
        cells = (held[name] for name in ("student", "teacher", "counted", "peak, given back", "peak"))
        lines.append(f"| {number} | " + " | ".join(f"{cell:,.0f}" for cell in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peak", choices=PEAKS, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak is not None:
        return of_this_process(arguments.peak, arguments.output)
    processes = {}
    for number in NUMBERS:
        held = {name: size for peak in PEAKS for name, size in largest(number, peak).items()}
        counted = memory_estimate(model_of("student"), [model_of("teacher")], num_shards=number).total / 2**20
        processes[str(number)] = {**held, "counted": counted}
    return save("sharding", {"sizes": SIZES, "layers": LAYERS, "processes": processes}, table(processes))


if __name__ == "__main__":
    main()

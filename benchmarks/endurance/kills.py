"""SIGKILL at random moments of training: every run resumes, and ends bit for bit like one that nobody killed.

    python benchmarks/endurance/kills.py

A tiny pair with dropout, a learned projection and accumulation writes a checkpoint every second step, so that many
kills fall into the writing. Each run is killed and resumed until it ends; then the next one begins.
"""

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tiny_pair import quiet_trainer

from hf_distill.checkpoints import MANIFEST


sys.path.append(str(Path(__file__).parents[1]))  # a script, not a package: beside it lies what benchmarks share

from measuring import save


STEPS, SAVE_STEPS = 30, 2
LAST = f"checkpoint-{STEPS}"


def train(output_dir: Path) -> None:
    """What the process runs that is killed: the last whole checkpoint, if there is any, is gone on from."""
    trainer = quiet_trainer(
        output_dir,
        num_rows=38,
        max_steps=STEPS,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        logging_steps=3,
        save_steps=SAVE_STEPS,
    )
    trainer.train(resume_from_checkpoint=any(output_dir.glob("checkpoint-*")))


def seconds_until_killed(output_dir: Path, seconds: float | None) -> float | None:
    """Train in a process of its own, and kill it after so many seconds.

    Returns:
        How long that took; None if it was killed before its end.
    """
    process = multiprocessing.get_context("fork").Process(target=train, args=(output_dir,))
    start = time.perf_counter()
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    if process.exitcode != 0:
        raise RuntimeError(f"training in {output_dir} ended with exit code {process.exitcode}")
    return time.perf_counter() - start


def is_like(folder: Path, whole: Path) -> bool:
    """Whether weights, learned parts, optimizer and logs of two checkpoints are equal bit for bit."""
    for name in ("model.safetensors", "learned_parts.safetensors"):
        one, other = load_file(folder / name), load_file(whole / name)
        if one.keys() != other.keys() or not all(torch.equal(one[key], other[key]) for key in one):
            return False
    moments = [torch.load(each / "optimizer.pt", weights_only=True)["state"] for each in (folder, whole)]
    for index, values in moments[0].items():
        if not all(torch.equal(value, moments[1][index][key]) for key, value in values.items()):
            return False
    logs = [json.loads((each / "trainer_state.json").read_text())["log_history"] for each in (folder, whole)]
    return bool(logs[0] == logs[1])


def battery(folder: Path, num_kills: int, seed: int) -> dict[str, Any]:
    """So many kills, over as many runs as it takes."""
    duration = seconds_until_killed(folder / "whole", None)
    assert duration is not None
    draw = random.Random(seed)
    kills = runs = equal = 0
    unfinished = set()
    while kills < num_kills:
        run = folder / f"run-{runs}"
        while seconds_until_killed(run, draw.uniform(0, duration) if kills < num_kills else None) is None:
            kills += 1
            for each in run.glob("checkpoint-*"):
                if not (each / MANIFEST).exists():
                    unfinished.add((each, each.stat().st_mtime_ns))
        runs += 1
        equal += is_like(run / LAST, folder / "whole" / LAST)
    return {
        "kills": kills,
        "left_unfinished": len(unfinished),
        "runs": runs,
        "equal_runs": equal,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = battery(Path(folder), arguments.kills, arguments.seed)
    lines = [
        "| SIGKILLs | of them while a checkpoint was written | runs | equal to the unkilled run |",
        "|---|---|---|---|",
    ]
    lines.append("| {} |".format(" | ".join(map(str, results.values()))))
    save("endurance/kills", {"seed": arguments.seed, **results}, "\n".join(lines))


if __name__ == "__main__":
    main()

"""Teachers of every architecture of Transformers that can be made tiny, sharded over two gloo processes: do they
answer as whole ones do?

    python benchmarks/sharded_architectures.py

The models and rows are those of `architectures.py`, which says what is not to be had tiny.
"""

import argparse
import copy
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from architectures import HEADS, classes_of, small_pair, small_rows
from measuring import save

from hf_distill import OnlineTeacher, head_of


sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.tiny_models import PaddingCollator


def answers(model: Any, task: str, *, sharded: bool) -> torch.Tensor:
    teacher = OnlineTeacher(model, head_of(model))
    if sharded:
        teacher.shard()
    torch.manual_seed(0)  # of those that draw something
    return teacher.signals(PaddingCollator()(small_rows(task)[4:])).logits


def tried(model_class: Any, config_class: Any, task: str) -> str | None:
    """Whether answers are equal, or what went wrong; None if there is nothing to compare."""
    try:
        model, _ = small_pair(model_class, config_class, task)
        expected = answers(copy.deepcopy(model), task, sharded=False)
    except Exception:
        return None
    try:
        found = answers(model, task, sharded=True)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
    return "equal" if torch.allclose(found, expected, atol=1e-5, equal_nan=True) else "other answers"


def of_this_process(output: Path) -> None:
    torch.distributed.init_process_group("gloo")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    found = {
        model_class.__name__: tried(model_class, config_class, task)
        for head, task in HEADS.items()
        for model_class, config_class in classes_of(head)
    }
    (output / os.environ["RANK"]).write_text(json.dumps(found))
    torch.distributed.barrier()
    os._exit(0)  # gloo may keep the interpreter from ending


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.output is not None:
        return of_this_process(arguments.output)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        subprocess.run([*command, __file__, "--output", folder], check=True)
        ranks = [json.loads((Path(folder) / rank).read_text()) for rank in "01"]
    equal = sum(ranks[0][name] == ranks[1][name] == "equal" for name in ranks[0])
    failed = {name: what for rank in ranks for name, what in rank.items() if what not in ("equal", None)}
    lines = ["| answers are equal | not | not to be had tiny |", "|---|---|---|"]
    lines.append(f"| {equal} | {len(failed)} | {len(ranks[0]) - equal - len(failed)} |\n")
    lines += ["| model | what |", "|---|---|", *(f"| `{name}` | {what} |" for name, what in failed.items())]
    return save("sharded_architectures", {"equal": equal, "failed": failed}, "\n".join(lines))


if __name__ == "__main__":
    main()

"""What every benchmark needs: rounds in turn, and a record of where and when."""

import ctypes
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


RESULTS = Path(__file__).with_name("results")


def in_turn(contenders: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run all contenders once per round, A B C A B C …, so that a machine that drifts does so for all of them."""
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            figures[name].append(contender())
    return figures


def ratio(figures: dict[str, list[float]], numerator: str, denominator: str) -> float:
    """The median over rounds of one contender's figure over another's in the same round."""
    return statistics.median(a / b for a, b in zip(figures[numerator], figures[denominator], strict=True))


def difference(figures: dict[str, list[float]], minuend: str, subtrahend: str) -> float:
    """The median over rounds of one contender's figure minus another's in the same round."""
    return statistics.median(a - b for a, b in zip(figures[minuend], figures[subtrahend], strict=True))


def seconds_and_mebibytes(call: Callable[[], Any]) -> tuple[float, float]:
    """How long a call takes, and the most memory that the process holds in it above what it held before (Linux)."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    before, start = _status("VmRSS"), time.perf_counter()
    call()
    return time.perf_counter() - start, _status("VmHWM") - before


def _status(field: str) -> float:
    """What Linux says of this process, in MiB."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def circumstances() -> dict[str, Any]:
    """Hardware, versions and date."""
    packages = ("torch", "transformers", "accelerate", "hf_distill")
    return {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def save(name: str, results: dict[str, Any], table: str) -> None:
    """Write `results/<name>.json` and `.md`, and print the table."""
    (RESULTS / name).parent.mkdir(parents=True, exist_ok=True)
    where = circumstances()
    script = f"{name}/run.py" if (RESULTS.parent / name / "run.py").exists() else f"{name}.py"
    (RESULTS / f"{name}.json").write_text(json.dumps({"circumstances": where, **results}, indent=2) + "\n")
    caption = ", ".join(f"{key} {value}" for key, value in where.items())
    (RESULTS / f"{name}.md").write_text(f"{table}\n\nMeasured by `benchmarks/{script}`: {caption}.\n")
    print(f"{table}\n\n{caption}")

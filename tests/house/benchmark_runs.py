"""Benchmarks run as a user runs them, without the variable that names real data."""

import os
import subprocess
import sys
from pathlib import Path


SECONDS = 120


def run_benchmark(script: Path, folder: Path, *arguments: object) -> str:
    """What a script prints, run in a folder."""
    variables = {name: value for name, value in os.environ.items() if name != "HF_DISTILL_DATA"}
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        cwd=folder,
        env={**variables, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout

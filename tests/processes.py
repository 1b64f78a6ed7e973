"""Scripts run by several gloo processes on this machine."""

import os
import subprocess
import sys
from pathlib import Path


def run_two_processes(script: Path, *arguments: object) -> None:
    """Run the script on two processes, and fail with what they wrote if one of them does."""
    run_processes(2, script, *arguments)


def run_processes(number: int, script: Path, *arguments: object) -> None:
    """Run the script on so many processes, and fail with what they wrote if one of them does."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={number}"]
    run = subprocess.run(
        [*command, str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert run.returncode == 0, run.stderr[-3000:]

"""Scripts run by several gloo processes on this machine."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO


TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def run_two_processes(script: Path, *arguments: object) -> None:
    """Run the script on two processes, and fail with what they wrote if one of them does."""
    run_processes(2, script, *arguments)


def run_processes(number: int, script: Path, *arguments: object) -> None:
    """Run the script on so many processes, and fail with what they wrote if one of them does."""
    _wait_for(_launched(["--standalone", f"--nproc_per_node={number}"], script, arguments))


def run_two_nodes(processes_per_node: int, script: Path, *arguments: object) -> None:
    """Run the script by two launchers that meet at a port, as on two machines, with so many processes each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = ["--nnodes=2", "--master_addr=127.0.0.1", f"--master_port={port}"]
    nodes = [
        _launched([*common, f"--node_rank={node}", f"--nproc_per_node={processes_per_node}"], script, arguments)
        for node in range(2)
    ]
    try:
        for node in nodes:
            _wait_for(node)
    finally:
        for launcher, _ in nodes:
            launcher.terminate()


def _launched(
    options: list[str], script: Path, arguments: tuple[object, ...]
) -> tuple[subprocess.Popen[bytes], IO[str]]:
    """A launcher that was started, and what it and its processes write."""
    written = tempfile.TemporaryFile("w+")  # a pipe that nobody reads yet may be full
    launcher = subprocess.Popen(
        [*TORCHRUN, *options, str(script), *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=written,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    return launcher, written


def _wait_for(launched: tuple[subprocess.Popen[bytes], IO[str]]) -> None:
    launcher, written = launched
    with written:
        try:
            launcher.wait(timeout=240)
        finally:
            launcher.kill()
        written.seek(0)
        assert launcher.returncode == 0, written.read()[-3000:]

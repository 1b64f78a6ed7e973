"""Scripts run by several gloo processes on this machine."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path


def run_two_processes(script: Path, *arguments: object) -> None:
    """Run the script on two processes, and fail with what they wrote if one of them does."""
    run_processes(2, script, *arguments)


def run_processes(number: int, script: Path, *arguments: object) -> None:
    """Run the script on so many processes, and fail with what they wrote if one of them does."""
    _run([["--standalone", f"--nproc_per_node={number}"]], script, arguments)


def run_two_nodes(processes_per_node: int, script: Path, *arguments: object) -> None:
    """Run the script by two launchers that meet at a port, as on two machines, with so many processes each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = ["--nnodes=2", f"--nproc_per_node={processes_per_node}"]
    nodes += ["--master_addr=127.0.0.1", f"--master_port={port}"]
    _run([[*nodes, f"--node_rank={node}"] for node in range(2)], script, arguments)


def _run(launchers: Sequence[Sequence[str]], script: Path, arguments: Sequence[object]) -> None:
    with ExitStack() as stack:
        started = []
        for options in launchers:
            written = stack.enter_context(tempfile.TemporaryFile("w+"))  # a pipe that nobody reads yet may be full
            launcher = subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *options, str(script), *map(str, arguments)],
                stdout=subprocess.DEVNULL,
                stderr=written,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
            )
            stack.callback(launcher.terminate)
            started.append((launcher, written))
        for launcher, written in started:
            launcher.wait(timeout=240)
            written.seek(0)
            assert launcher.returncode == 0, written.read()[-3000:]

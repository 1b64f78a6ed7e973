"""Every example runs to its end on its smallest setting, and leaves evidence of what it did."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("distill_*.py"))
SECONDS = 120


def run_example(script: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run an example's `--smoke` setting, offline, in an empty folder."""
    return subprocess.run(
        [sys.executable, script, "--smoke", "--output_dir", folder / "evidence"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def fault_of_run(done: subprocess.CompletedProcess[str], folder: Path) -> str | None:
    """What an example did not do: end well, or leave a file that is not empty in its output folder."""
    if done.returncode:
        return f"exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    if not any(path.is_file() and path.stat().st_size for path in (folder / "evidence").rglob("*")):
        return f"nothing was written to --output_dir\n{done.stdout[-2000:]}"
    return None


def test_there_are_examples():
    assert EXAMPLES


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 10)
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_example_runs(script, tmp_path):
    assert fault_of_run(run_example(script, tmp_path), tmp_path) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("import sys; sys.exit('no luck')", "no luck"),
        ("print('only words')", "nothing was written to --output_dir\nonly words"),
        ("import sys, pathlib as p; f = p.Path(sys.argv[3]); f.mkdir(); (f / 'a').write_text(sys.argv[1])", None),
    ],
)
def test_finds_what_an_example_did_not_do(text, fault, tmp_path):
    script = tmp_path / "example.py"
    script.write_text(text)
    found = fault_of_run(run_example(script, tmp_path), tmp_path)
    assert found is None if fault is None else fault in found

"""Two launchers with processes of their own, which meet at a port and share a folder, do what one process does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cache.small_caches import contents
from tests.processes import run_two_nodes
from tests.ten_steps import trained
from tests.test_processes import check_equal


TESTS = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("processes_per_node", [1, 2])
def test_ten_steps_equal_those_of_one_process(tmp_path, processes_per_node):
    run_two_nodes(processes_per_node, TESTS / "ten_steps.py", tmp_path, "ddp", "every_family")
    check_equal(tmp_path, 2 * processes_per_node, trained(tmp_path / "one"), "every_family")


@pytest.mark.slow
@pytest.mark.distributed
def test_a_cache_that_two_nodes_write_into_one_folder(tmp_path):
    builders = TESTS / "teachers" / "two_builders.py"
    run_two_nodes(2, builders, tmp_path / "nodes")
    run = [sys.executable, str(builders), str(tmp_path / "one")]
    subprocess.run(run, check=True, env={**os.environ, "PYTHONPATH": str(TESTS.parent)})
    assert contents(tmp_path / "nodes") == contents(tmp_path / "one")

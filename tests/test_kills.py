"""Training that is killed at random moments ends like training that nobody killed."""

import importlib.util
from pathlib import Path

import pytest


SCRIPT = Path(__file__).parents[1] / "benchmarks" / "endurance" / "kills.py"


def battery(folder, num_kills, seed):
    specification = importlib.util.spec_from_file_location("kills", SCRIPT)
    kills = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(kills)
    return kills.battery(folder, num_kills, seed)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # one thread of ours computes
def test_a_few_kills(tmp_path):
    results = battery(tmp_path, num_kills=4, seed=1)
    assert results["kills"] == 4
    assert results["equal_runs"] == results["runs"] > 0


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_fifty_kills(tmp_path):
    results = battery(tmp_path, num_kills=50, seed=2)
    assert results["kills"] == 50
    assert results["left_unfinished"] > 5  # so the writing was hit, too
    assert results["equal_runs"] == results["runs"] > 0

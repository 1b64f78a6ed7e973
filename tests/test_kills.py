"""Training that is killed at random moments ends like training that nobody killed."""

import sys
from importlib import import_module
from pathlib import Path

import pytest


FOLDER = Path(__file__).parents[1] / "benchmarks" / "endurance"


@pytest.fixture
def battery(monkeypatch):
    """The battery of `benchmarks/endurance/kills.py`, which is a script beside others and no package."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    return import_module("kills").battery


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # one thread of ours computes
def test_a_few_kills(tmp_path, battery):
    results = battery(tmp_path, num_kills=4, seed=1)
    assert results["kills"] == 4
    assert results["equal_runs"] == results["runs"] > 0


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_fifty_kills(tmp_path, battery):
    results = battery(tmp_path, num_kills=50, seed=2)
    assert results["kills"] == 50
    assert results["left_unfinished"] > 5  # so the writing was hit, too
    assert results["equal_runs"] == results["runs"] > 0

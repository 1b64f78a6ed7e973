"""Damaged files and wrong options of all kinds end in a right answer or in an error of ours."""

import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest


FOLDER = Path(__file__).parents[1] / "benchmarks" / "endurance"

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # one thread of ours computes


@pytest.fixture
def battery(monkeypatch):
    """What a script of `benchmarks/endurance` offers, which is a script beside others and no package."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    return lambda script, name: getattr(import_module(script), name)


def case(draw):
    """Ends in one of five ways."""
    match draw.randrange(5):
        case 0:
            return "well"
        case 1:
            raise KeyError("of a dictionary")
        case 2:
            os.kill(os.getpid(), signal.SIGKILL)
        case 3:
            time.sleep(60)
        case 4:
            bytearray(2**40)


def test_the_battery_finds_errors_crashes_hangs_and_sizes_that_are_believed(battery, monkeypatch):
    monkeypatch.setattr(import_module("fuzzing"), "SECONDS_PER_CASE", 0.5)
    results = battery("fuzzing", "battery")(case, 12, seed=1)
    draws = [battery("fuzzing", "case_of")(1, number).randrange(5) for number in range(12)]
    assert set(draws) == set(range(5))
    assert results["cases"] == 12 and results["outcomes"] == {"well": draws.count(0)}
    said = {1: "KeyError: 'of a dictionary'", 2: "ends its process with -9", 3: "hangs", 4: "MemoryError"}
    expected = [(number, said[end]) for number, end in enumerate(draws) if end]
    assert [number for number, _ in results["faults"]] == [number for number, _ in expected]
    assert all(words in fault for (_, fault), (_, words) in zip(results["faults"], expected, strict=True))


def check_caches(fuzz, folder, num_cases, seed):
    results = fuzz(folder, num_cases, seed)
    assert results["faults"] == []
    assert sum(results["outcomes"].values()) == num_cases
    for outcome in ("damaged: DamagedCacheError", "forged: DamagedCacheError", "forged: read as it was written"):
        assert results["outcomes"][outcome] > 0


def test_a_few_caches(battery, tmp_path):
    check_caches(battery("fuzzed_caches", "fuzz_caches"), tmp_path, 300, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_thousand_caches(battery, tmp_path):
    check_caches(battery("fuzzed_caches", "fuzz_caches"), tmp_path, 10_000, seed=2)


def check_configurations(fuzz, folder, num_cases, seed):
    results = fuzz(folder, num_cases, seed)
    assert results["faults"] == []
    assert sum(results["outcomes"].values()) == num_cases
    for kind in ("training", "term", "objective", "schedule", "layer map", "budget", "command", "file"):
        assert results["outcomes"][f"{kind}: taken"] > 0
        assert sum(count for end, count in results["outcomes"].items() if end.startswith(f"{kind}: ")) > num_cases / 20


def test_a_few_configurations(battery, tmp_path):
    check_configurations(battery("fuzzed_configurations", "fuzz_configurations"), tmp_path, 500, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_thousand_configurations(battery, tmp_path):
    check_configurations(battery("fuzzed_configurations", "fuzz_configurations"), tmp_path, 10_000, seed=2)

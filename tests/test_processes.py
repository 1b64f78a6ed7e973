"""Two and four processes learn what one learns, and end together."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_distill.checkpoints import damage, is_unfinished
from tests import resuming_processes
from tests.processes import run_processes
from tests.ten_steps import OBJECTIVES, trained


slow = pytest.mark.slow


@pytest.mark.distributed
@pytest.mark.parametrize(
    "way, number",
    [
        ("ddp", 2),
        pytest.param("sharded", 2, marks=slow),
        pytest.param("loaded", 2, marks=slow),
        pytest.param("teacher_loaded", 2, marks=slow),
        pytest.param("ddp", 4, marks=slow),
        pytest.param("sharded", 4, marks=slow),
    ],
)
def test_ten_steps_equal_those_of_one_process(tmp_path, way, number):
    run_processes(number, Path(__file__).with_name("ten_steps.py"), tmp_path, way, "every_family")
    check_equal(tmp_path, number, trained(tmp_path / "one"), "every_family")
    weights = load(tmp_path)["weights"]
    assert {f"learned {part}.weight" for part in ("hidden_1_2", "hidden_2_4", "variational_2_4")} < weights.keys()
    if way != "sharded":
        saved = load_file(tmp_path / "saved" / "model.safetensors")
        assert saved.keys() == {name for name in weights if not name.startswith("learned ")}
        assert all(torch.equal(weight, weights[name]) for name, weight in saved.items())


@slow
@pytest.mark.distributed
@pytest.mark.parametrize("way", ["ddp", "sharded"])
def test_rows_are_compared_within_a_micro_batch(tmp_path, way):
    """So that two processes learn what one learns of the same micro-batches, one after the other."""
    run_processes(2, Path(__file__).with_name("ten_steps.py"), tmp_path, way, "between_rows")
    accumulated = trained(tmp_path / "one", objective="between_rows", accumulation=2)
    check_equal(tmp_path, 2, accumulated, "between_rows")
    whole = trained(tmp_path / "whole", objective="between_rows")
    assert whole["logs"][0]["loss/contrast"] > 1.2 * accumulated["logs"][0]["loss/contrast"]


def load(output_dir, rank=0):
    return torch.load(output_dir / f"rank{rank}.pt", weights_only=True)


def check_equal(output_dir, number, expected, objective):
    """Weights, learned parts and logs of every process are those of one process."""
    moved = [name for name, weight in expected["before"].items() if (expected["weights"][name] - weight).norm() > 1e-3]
    assert len(moved) > len(expected["before"]) / 2
    for rank in range(number):
        found = load(output_dir, rank)
        assert found["weights"].keys() == expected["weights"].keys()
        for name, weight in expected["weights"].items():
            torch.testing.assert_close(found["weights"][name], weight, rtol=1e-5, atol=1e-5, msg=name)
        assert len(found["logs"]) == len(expected["logs"]) == 10
        for ours, theirs in zip(found["logs"], expected["logs"], strict=True):
            assert sum(name.startswith("loss/") for name in theirs) == len(OBJECTIVES[objective]().terms)
            assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)


@slow
@pytest.mark.distributed
def test_a_signal_to_one_process_ends_all(tmp_path):
    run_processes(2, Path(__file__).with_name("signalled_processes.py"), tmp_path)
    assert [(tmp_path / f"rank{rank}").read_text() for rank in range(2)] == ["3", "3"]
    folder = tmp_path / "checkpoint-3"
    assert not is_unfinished(folder) and damage(folder) == []
    assert {"rng_state_0.pth", "rng_state_1.pth"} < {path.name for path in folder.iterdir()}


@slow
@pytest.mark.distributed
@pytest.mark.parametrize("before, after", [(1, 2), (2, 1)])
def test_training_goes_on_with_another_number_of_processes(tmp_path, before, after):
    """With as many rows a step: Adam's states, learned parts and the place in the data are those of the checkpoint."""
    folder, script = tmp_path / "run", Path(resuming_processes.__file__)
    folder.mkdir()
    run_processes(before, script, folder, 5, "start")
    run_processes(after, script, folder, 10, "resume")
    expected = resuming_processes.trained(tmp_path / "one")
    for rank in range(after):
        found = load(folder, rank)
        for name, weight in expected["weights"].items():
            torch.testing.assert_close(found["weights"][name], weight, rtol=1e-5, atol=1e-5, msg=name)
        assert len(expected["logs"]) == len(found["logs"]) == 10
        for ours, theirs in zip(found["logs"], expected["logs"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)

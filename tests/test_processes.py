"""Two and four processes learn what one learns, and end together."""

from pathlib import Path

import pytest
import torch

from hf_distill.checkpoints import damage, is_unfinished
from tests.processes import run_processes
from tests.ten_steps import trained


@pytest.mark.distributed
@pytest.mark.parametrize("number", [pytest.param(2), pytest.param(4, marks=pytest.mark.slow)])
def test_ten_steps_equal_those_of_one_process(tmp_path, number):
    run_processes(number, Path(__file__).with_name("ten_steps.py"), tmp_path)
    expected = trained(tmp_path / "one", 1)
    moved = [name for name, weight in expected["before"].items() if (expected["weights"][name] - weight).norm() > 1e-3]
    assert len(moved) > len(expected["before"]) / 2
    assert {f"learned hidden_{pair}.weight" for pair in ("1_2", "2_4")} < expected["weights"].keys()
    for rank in range(number):
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert found["weights"].keys() == expected["weights"].keys()
        for name, weight in expected["weights"].items():
            torch.testing.assert_close(found["weights"][name], weight, rtol=1e-5, atol=1e-5, msg=name)
        assert len(found["logs"]) == len(expected["logs"]) == 10
        for ours, theirs in zip(found["logs"], expected["logs"], strict=True):
            assert sum(name.startswith("loss/") for name in theirs) == 9
            assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)


@pytest.mark.slow
@pytest.mark.distributed
def test_a_signal_to_one_process_ends_all(tmp_path):
    run_processes(2, Path(__file__).with_name("signalled_processes.py"), tmp_path)
    assert [(tmp_path / f"rank{rank}").read_text() for rank in range(2)] == ["3", "3"]
    folder = tmp_path / "checkpoint-3"
    assert not is_unfinished(folder) and damage(folder) == []
    assert {"rng_state_0.pth", "rng_state_1.pth"} < {path.name for path in folder.iterdir()}

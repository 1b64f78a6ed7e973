"""What is logged of each term. That a resumed run logs the same stands in `test_resume.py`."""

import pytest
import torch

from hf_distill import Linear, Objective
from hf_distill.terms import HardLabelTerm, SoftTargetTerm
from tests.reference import reference_means
from tests.tiny_models import model_for, rows_for
from tests.tiny_trainers import loss_logs, trainer_for


def test_weights_and_temperatures_move_as_they_are_logged(tmp_path):
    inner = Objective({"labels": (1.0, HardLabelTerm()), "soft": (Linear(1.0, 0.5), SoftTargetTerm(Linear(5.0, 1.0)))})
    trainer = trainer_for(
        tmp_path,
        objective=Objective({"task": (Linear(0.0, 1.0), inner)}),
        learning_rate=0.0,
        max_steps=4,
        per_device_train_batch_size=8,
    )
    trainer.train()
    logs = loss_logs(trainer)
    assert [log["weight/task/labels"] for log in logs] == [0.25, 0.5, 0.75, 1.0]
    assert [log["weight/task/soft"] for log in logs] == [0.25 * 0.875, 0.5 * 0.75, 0.75 * 0.625, 0.5]
    assert [log["temperature/task/soft"] for log in logs] == [4.0, 3.0, 2.0, 1.0]
    models = model_for("single_label", 1).eval(), model_for("single_label", 2).eval()
    for step, log in enumerate(logs):  # the step itself was made with what held when it began
        with torch.no_grad():
            means = reference_means(*models, "single_label", rows_for("single_label"), temperature=5.0 - step)
        assert log["loss/task/soft"] == pytest.approx(means["soft"].item(), rel=1e-4)
        weights = step / 4, step / 4 * (1 - step / 8)
        assert log["loss"] == pytest.approx(
            weights[0] * log["loss/task/labels"] + weights[1] * log["loss/task/soft"], rel=1e-4, abs=1e-6
        )


def test_logs_are_means_over_the_steps_since_the_last(tmp_path):
    every, third = (
        trainer_for(tmp_path / str(steps), max_steps=6, logging_steps=steps, per_device_train_batch_size=2)
        for steps in (1, 3)
    )
    every.train()
    third.train()
    for name in ("loss", "loss/labels", "loss/soft"):
        values = [log[name] for log in loss_logs(every)]
        means = [sum(values[start : start + 3]) / 3 for start in (0, 3)]
        assert [log[name] for log in loss_logs(third)] == pytest.approx(means, rel=1e-5)
        assert len(set(values)) == 6

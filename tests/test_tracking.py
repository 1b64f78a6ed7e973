"""What reaches TensorBoard, in its own files, and Trackio and W&B: all that the Trainer hands to `on_log`."""

import math

import pytest
from transformers import TrainerCallback

from hf_distill import HardLabelTerm, Linear, Objective, SoftTargetTerm
from tests.tiny_models import rows_for
from tests.tiny_trainers import trainer_for


class Tracker(TrainerCallback):
    """Logs as the trackers of Transformers do: numbers by name and step, from `on_log` on the main process."""

    def __init__(self):
        self.steps = {}

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero:
            self.steps.setdefault(state.global_step, {}).update(logs)


def test_terms_weights_temperatures_and_gradient_norms(tmp_path):
    tracker = Tracker()
    objective = Objective(
        {"labels": (Linear(0.2, 0.8), HardLabelTerm()), "soft": (1.0, SoftTargetTerm(Linear(4.0, 1.0)))}
    )
    trainer = trainer_for(tmp_path, objective=objective, callbacks=[tracker], max_steps=4, max_grad_norm=1.0)
    trainer.train()
    for step in range(1, 5):
        logs = tracker.steps[step]
        names = ("loss", "loss/labels", "loss/soft", "weight/labels", "temperature/soft", "grad_norm", "learning_rate")
        assert all(math.isfinite(logs[name]) for name in names)
        assert logs["weight/labels"] == Linear(0.2, 0.8)(step / 4)
        assert logs["temperature/soft"] == Linear(4.0, 1.0)(step / 4)
    assert tracker.steps[1]["grad_norm"] > 0


def test_event_files_of_tensorboard(tmp_path):
    """Every number of the logs, read back as TensorBoard reads it."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    objective = Objective(
        {"labels": (Linear(0.2, 0.8), HardLabelTerm()), "soft": (1.0, SoftTargetTerm(Linear(4.0, 1.0)))}
    )
    rows = rows_for("single_label")
    evaluation = {"eval_dataset": rows, "eval_strategy": "steps", "eval_steps": 2}
    trainer = trainer_for(tmp_path, objective=objective, max_steps=4, report_to=["tensorboard"], **evaluation)
    trainer.train()
    (folder,) = (tmp_path / "runs").iterdir()
    events = accumulator(str(folder)).Reload()
    found = {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    for tag in ("loss", "loss/labels", "loss/soft", "weight/labels", "temperature/soft", "grad_norm"):
        assert list(found[f"train/{tag}"]) == [1, 2, 3, 4], tag
    for tag in ("loss", "loss/labels", "loss/soft"):
        assert list(found[f"eval/{tag}"]) == [2, 4], tag
    for logs in trainer.state.log_history:
        for name, value in logs.items():
            where = name.replace("eval_", "eval/") if name.startswith("eval_") else f"train/{name}"
            if name not in ("step", "epoch"):
                assert found[where][logs["step"]] == pytest.approx(value, rel=1e-6), name
    assert all(found["train/temperature/soft"][step] == Linear(4.0, 1.0)(step / 4) for step in range(1, 5))
    assert all(value > 0 for value in found["train/grad_norm"].values())
    assert {"args/text_summary", "model_config/text_summary"} <= set(events.Tags()["tensors"])
    (args,) = events.Tensors("args/text_summary")
    assert b'"temperature"' in args.tensor_proto.string_val[0]


def test_what_does_not_move_is_in_the_configuration(tmp_path):
    """Trackers log the arguments once."""
    args = trainer_for(tmp_path, temperature=3.0, alpha=0.25).args.to_dict()
    assert args["temperature"] == 3.0 and args["alpha"] == 0.25

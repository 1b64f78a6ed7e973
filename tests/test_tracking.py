"""What reaches TensorBoard, Trackio and W&B: all that the Trainer hands to a callback's `on_log`."""

import math

from transformers import TrainerCallback

from hf_distill import HardLabelTerm, Linear, Objective, SoftTargetTerm
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


def test_what_does_not_move_is_in_the_configuration(tmp_path):
    """Trackers log the arguments once."""
    args = trainer_for(tmp_path, temperature=3.0, alpha=0.25).args.to_dict()
    assert args["temperature"] == 3.0 and args["alpha"] == 0.25

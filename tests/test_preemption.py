"""A signal ends training after the step that runs, with a checkpoint that training goes on from exactly."""

import os
import signal

import pytest
import torch
from transformers import TrainerCallback

from hf_distill.checkpoints import damage
from hf_distill.preemption import SIGNALS
from tests.test_resume import LAST_STEP, state_of
from tests.test_resume import trainer_for as resumable
from tests.tiny_models import rows_for
from tests.tiny_trainers import trainer_for


class SignalAt(TrainerCallback):
    """Sends this process a signal in the middle of a step, or at one of its ends."""

    def __init__(self, number, step, event):
        self.number, self.step = number, step
        setattr(self, f"on_{event}", self.send)

    def send(self, args, state, control, **kwargs):
        if state.global_step == self.step and self.number:
            number, self.number = self.number, 0
            os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def handlers_come_back():
    found = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before
    signal.signal(signal.SIGINT, found)


MOMENTS = [
    (5, "substep_end"),
    pytest.param(5, "pre_optimizer_step", marks=pytest.mark.slow),
    pytest.param(5, "step_begin", marks=pytest.mark.slow),
    (3, "pre_optimizer_step"),
    (4, "log"),
    pytest.param(5, "step_end", marks=pytest.mark.slow),
]
"""Steps done when the signal comes. An epoch has 4, and logs come after 4 and 8."""


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("step, event", MOMENTS)
def test_goes_on_exactly(tmp_path, number, step, event):
    changes = {"enable_jit_checkpoint": True, "save_total_limit": 1}
    resumable("single_label", tmp_path / "whole", **changes).train()
    interrupted = resumable("single_label", tmp_path / "parts", **changes)
    interrupted.add_callback(SignalAt(number, step, event))
    if number == signal.SIGINT:
        with pytest.raises(KeyboardInterrupt):
            interrupted.train()
    else:
        interrupted.train()
    ended = interrupted.state.global_step
    assert ended == step + 1
    assert damage(tmp_path / "parts" / f"checkpoint-{ended}") == []
    resumed = resumable("single_label", tmp_path / "parts", **changes)
    resumed.train(resume_from_checkpoint=True)
    whole, parts = (state_of(tmp_path / run / f"checkpoint-{LAST_STEP}") for run in ("whole", "parts"))
    for part in ("weights", "optimizer"):
        assert all(torch.equal(tensor, parts[part][name]) for name, tensor in whole[part].items())
    assert torch.equal(whole["random"], parts["random"])
    assert whole["logs"] == parts["logs"]


@pytest.mark.parametrize("step, evaluations", [(1, [2.0]), (2, [1.0, 2.0])])
def test_the_end_of_an_epoch_is_neither_lost_nor_made_up(tmp_path, step, evaluations):
    """Two steps an epoch. After step 1 there is nothing to evaluate yet; after step 2 it is done before the end."""
    options = {"eval_strategy": "epoch", "save_strategy": "epoch", "logging_strategy": "epoch", "num_train_epochs": 2}
    options |= {"max_steps": -1, "eval_dataset": rows_for("single_label"), "enable_jit_checkpoint": True}
    interrupted = trainer_for(tmp_path, **options, callbacks=[SignalAt(signal.SIGTERM, step, "step_end")])
    interrupted.train()
    assert interrupted.state.global_step == step
    resumed = trainer_for(tmp_path, **options)
    resumed.train(resume_from_checkpoint=True)
    logs = resumed.state.log_history
    assert [log["epoch"] for log in logs if "eval_loss" in log] == ([1.0] if step == 1 else []) + evaluations
    assert [log["epoch"] for log in logs if "loss" in log] == [1.0, 2.0]


def test_a_second_signal_ends_at_once(tmp_path):
    trainer = trainer_for(tmp_path, enable_jit_checkpoint=True, max_steps=3)
    trainer.add_callback(SignalAt(signal.SIGINT, 1, "step_begin"))
    trainer.add_callback(SignalAt(signal.SIGINT, 1, "pre_optimizer_step"))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.state.global_step == 1
    assert not (tmp_path / "checkpoint-2").exists()


def test_without_the_argument_signals_are_left_alone(tmp_path):
    trainer = trainer_for(tmp_path, max_steps=3, callbacks=[SignalAt(signal.SIGINT, 1, "step_begin")])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.state.global_step == 1


def test_training_once_more_after_a_signal(tmp_path):
    trainer = trainer_for(tmp_path, enable_jit_checkpoint=True, callbacks=[SignalAt(signal.SIGTERM, 0, "step_begin")])
    trainer.train()
    assert trainer.state.global_step == 1
    trainer.train()
    assert trainer.state.global_step == 2

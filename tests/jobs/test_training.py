import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from hf_distill import DistillationTrainingArguments
from hf_distill.checkpoints import MANIFEST
from hf_distill.errors import ConfigurationError
from hf_distill.jobs.data import job_data
from hf_distill.jobs.models import load_processor
from hf_distill.jobs.training import StoppedBySignal, measure, train, trainer_for
from tests.tiny_jobs import put_teacher, rows_of


TASK = "text-classification"


class SignalAtStep(TrainerCallback):
    def __init__(self, step, number):
        self.step, self.number = step, number

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), self.number)


def trainer_in(folder, **changes):
    model = put_teacher(folder / "model", TASK)
    rows = rows_of(TASK)
    data = job_data(TASK, rows, rows)
    args = DistillationTrainingArguments(
        output_dir=folder / "out",
        max_steps=6,
        per_device_train_batch_size=4,
        save_steps=2,
        alpha=1.0,
        use_cpu=True,
        preflight=False,
        disable_tqdm=True,
    )
    reading = data.reading(model, load_processor(folder / "model", TASK))
    return trainer_for(model, data, reading, args, **changes)


def test_labels_that_are_learnt_from_are_asked_for_at_once(tmp_path):
    model, teacher = (put_teacher(tmp_path / "model", TASK) for _ in range(2))
    rows = rows_of(TASK).rename_column("label", "verdict")
    data = job_data(TASK, rows, rows)
    reading = data.reading(model, load_processor(tmp_path / "model", TASK))
    args = DistillationTrainingArguments(output_dir=tmp_path, use_cpu=True)
    with pytest.raises(ConfigurationError, match=r"has the columns sentence, verdict\. Name it by `label_column`\.$"):
        trainer_for(model, data, reading, args, alpha=1.0)
    with pytest.raises(ConfigurationError, match="`label_column`, or learn from the teacher alone, as `alpha=0` does"):
        trainer_for(model, data, reading, args, teacher)
    assert trainer_for(model, data, reading, args, teacher, alpha=0.0).args.dataloader_pin_memory is False


def weights(folder):
    return load_file(Path(folder, "model.safetensors"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_goes_on_to_the_same_end(number, tmp_path):
    torch.manual_seed(0)
    whole = trainer_in(tmp_path / "whole")
    train(whole, resume=False)
    torch.manual_seed(0)
    stopped = trainer_in(tmp_path / "stopped")
    stopped.add_callback(SignalAtStep(3, number))
    with pytest.raises(StoppedBySignal) as caught:
        train(stopped, resume=False)
    assert caught.value.checkpoint.name == "checkpoint-4"
    assert caught.value.signal_number == number
    resumed = trainer_in(tmp_path / "stopped")
    torch.rand(100)  # what a run has drawn before does not matter
    train(resumed, resume=True)
    ends = weights(whole.args.output_dir), weights(resumed.args.output_dir)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_an_unfinished_checkpoint_is_passed_over(tmp_path):
    trainer = trainer_in(tmp_path)
    train(trainer, resume=False)
    folder = Path(trainer.args.output_dir)
    whole = weights(folder)
    (folder / "checkpoint-6" / MANIFEST).unlink()
    train(trainer_in(tmp_path), resume=True)
    assert (folder / "checkpoint-6" / MANIFEST).is_file()
    assert all(torch.equal(whole[name], value) for name, value in weights(folder).items())


def test_says_what_stopped_it(tmp_path):
    stopped = StoppedBySignal(signal.SIGTERM, tmp_path)
    assert str(stopped) == f"stopped by SIGTERM; the run goes on from {tmp_path}"


def test_changes_are_of_this_trainer_alone(tmp_path):
    trainer = trainer_in(tmp_path, seed=7)
    assert trainer.args.seed == 7
    assert trainer.args.remove_unused_columns
    assert not trainer.args.prediction_loss_only


def test_measures_scores_and_size(tmp_path):
    trainer = trainer_in(tmp_path)
    measured = measure(trainer)
    assert set(measured["scores"]) == {"loss", "loss/labels", "accuracy", "macro_f1"}
    assert measured["parameters"] == sum(each.numel() for each in trainer.model.parameters())
    assert measured["bytes"] >= 4 * measured["parameters"]
    assert measured["seconds"] > 0

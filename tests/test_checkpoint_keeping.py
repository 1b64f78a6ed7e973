"""Training goes on from the last whole checkpoint, and none is lost before the next one is whole."""

import os
import resource
import shutil

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_distill import checkpoint_keeping
from hf_distill.checkpoints import MANIFEST, damage, write_manifest
from hf_distill.errors import CheckpointError
from hf_distill.feature_training import LEARNED_PARTS
from tests.test_feature_training import trainer_of
from tests.test_resume import StopAt, state_of
from tests.tiny_models import PaddingCollator, model_for, rows_for
from tests.tiny_trainers import trainer_for


FILES = ("model.safetensors", LEARNED_PARTS, "optimizer.pt", "rng_state.pth", "scheduler.pt", "trainer_state.json")
SAVING = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1}


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(checkpoint_keeping.logger, "warning", said.append)
    return said


def flip_a_bit(path):
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 4
    path.write_bytes(contents)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path, name, warnings):
    whole = trainer_of(tmp_path / "whole", **SAVING)
    whole.train()
    expected = state_of(tmp_path / "whole" / "checkpoint-3")
    interrupted = trainer_of(tmp_path / "run", **SAVING, callbacks=[StopAt(2)])
    interrupted.train()
    flip_a_bit(tmp_path / "run" / "checkpoint-2" / name)
    resumed = trainer_of(tmp_path / "run", **SAVING)
    resumed.train(resume_from_checkpoint=True)
    assert f"checkpoint-2 is passed over: {name} has other contents than were written" in warnings[0]
    assert resumed._initial_global_step == 1
    found = state_of(tmp_path / "run" / "checkpoint-3")
    assert all(torch.equal(weight, found["weights"][key]) for key, weight in expected["weights"].items())
    assert expected["logs"] == found["logs"]
    assert damage(tmp_path / "run" / "checkpoint-2") == []  # written again on the way


def test_a_manifest_covers_every_file(tmp_path):
    trainer_of(tmp_path, **SAVING).train()
    folder = tmp_path / "checkpoint-3"
    assert set(FILES) < {path.name for path in folder.iterdir()}
    for path in folder.iterdir():
        if path.name != MANIFEST:
            contents = path.read_bytes()
            path.write_bytes(contents[:-1])
            assert damage(folder) == [f"{path.name} has {len(contents) - 1} bytes of {len(contents)}"]
            path.write_bytes(contents)


def test_a_damaged_checkpoint_that_is_asked_for_by_its_path(tmp_path):
    trainer_for(tmp_path, **SAVING).train()
    flip_a_bit(tmp_path / "checkpoint-3" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"checkpoint-3 cannot be gone on from: model\.safetensors has other"):
        trainer_for(tmp_path, **SAVING).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    with pytest.raises(OSError, match=r"checkpoint-7 cannot be gone on from: there is no such folder\. `resume_from_"):
        trainer_for(tmp_path, **SAVING).train(resume_from_checkpoint=str(tmp_path / "checkpoint-7"))


def test_nothing_but_damaged_checkpoints(tmp_path):
    trainer_for(tmp_path, **SAVING, save_total_limit=1).train()
    (tmp_path / "checkpoint-3" / "optimizer.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is whole; these are damaged: checkpoint-3 \(see"):
        trainer_for(tmp_path, **SAVING).train(resume_from_checkpoint=True)


def test_nothing_but_an_unfinished_checkpoint_starts_anew(tmp_path, warnings):
    (tmp_path / "run" / "checkpoint-1").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint-1" / "model.safetensors").write_bytes(b"half")
    trainers = [trainer_for(tmp_path / name, **SAVING) for name in ("run", "anew")]
    trainers[0].train(resume_from_checkpoint=True)
    trainers[1].train()
    assert warnings[0].endswith("checkpoint-1 is passed over: it was never finished.")
    assert warnings[1] == "No checkpoint was ever finished, so training starts anew."
    ours, theirs = (trainer.model.state_dict() for trainer in trainers)
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())


def test_no_checkpoint_at_all(tmp_path):
    with pytest.raises(ValueError, match="No valid checkpoint found in output directory"):
        trainer_for(tmp_path).train(resume_from_checkpoint=True)


def test_the_checkpoint_of_another_trainer(tmp_path, warnings):
    arguments = TrainingArguments(
        str(tmp_path), max_steps=1, save_steps=1, report_to=[], use_cpu=True, disable_tqdm=True
    )
    Trainer(
        model_for("single_label", 1),
        arguments,
        data_collator=PaddingCollator(),
        train_dataset=rows_for("single_label"),
    ).train()
    ours = trainer_for(tmp_path, **SAVING)
    ours.train(resume_from_checkpoint=True)
    assert ours._initial_global_step == 1
    assert warnings[0].endswith(f"checkpoint-1 has no {MANIFEST}, so whether it is whole is not known.")


class FullDisk(TrainerCallback):
    """From a step on, no file can be longer than so many bytes."""

    def __init__(self, step, limit):
        self.step, self.limit = step, limit

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= self.step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.fixture
def limits_that_end():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("limit", [3000, 40_000])
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, limit, limits_that_end):
    trainer = trainer_of(tmp_path, **SAVING, save_total_limit=1, callbacks=[FullDisk(2, limit)])
    with pytest.raises(CheckpointError) as raised:
        trainer.train()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    for part in ("cannot be written (", "MiB left", "`save_total_limit=`", "checkpoint-1 is whole, and `resume_from_"):
        assert part in str(raised.value)
    assert isinstance(raised.value, OSError)
    resumed = trainer_of(tmp_path, **SAVING)
    resumed.train(resume_from_checkpoint=True)
    assert resumed._initial_global_step == 1


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CheckpointError, match=r"run cannot be written \(NotADirectoryError: .*another `output_dir`"):
        trainer_for(tmp_path / "file" / "run")


def test_a_folder_that_is_gone_is_noticed_before_the_first_step(tmp_path):
    trainer = trainer_for(tmp_path / "run", **SAVING)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").write_text("no folder")
    with pytest.raises(CheckpointError, match=r"run cannot be written \(FileExistsError"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_other_errors_stay_what_they_are(tmp_path, monkeypatch):
    trainer = trainer_for(tmp_path, **SAVING)

    def fail(*args):
        raise RuntimeError("the network is down")

    monkeypatch.setattr(trainer, "_save_scaler", fail)
    with pytest.raises(RuntimeError, match=r"^the network is down$"):
        trainer.train()


def test_nothing_is_deleted_before_the_next_one_is_whole(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "hf_distill.checkpoint_keeping.write_manifest",
        lambda folder: (seen.append(sorted(path.name for path in tmp_path.iterdir())), write_manifest(folder)),
    )
    trainer_for(tmp_path, **SAVING, save_total_limit=1).train()
    assert seen == [["checkpoint-1"], ["checkpoint-1", "checkpoint-2"], ["checkpoint-2", "checkpoint-3"]]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]


def test_an_unfinished_one_of_a_later_step_does_not_count_as_newer(tmp_path):
    """On file systems that keep no times, Transformers would delete the one that was just written."""
    (tmp_path / "checkpoint-9").mkdir()
    trainer_for(tmp_path, **SAVING, save_total_limit=1).train()
    for path in tmp_path.iterdir():
        os.utime(path, (1.0, 1.0))
    trainer = trainer_for(tmp_path, **SAVING, save_total_limit=1)
    trainer.state.global_step = 3
    trainer._delete_older_checkpoints(tmp_path / "checkpoint-3")
    assert (tmp_path / "checkpoint-3").exists()


def test_what_is_pushed_is_whole(tmp_path, monkeypatch):
    trainer = trainer_for(tmp_path, **{**SAVING, "max_steps": 1})
    trainer.args.push_to_hub = True
    pushed = []
    monkeypatch.setattr(
        Trainer, "_push_from_checkpoint", lambda self, folder: pushed.append(sorted(os.listdir(folder)))
    )
    trainer.train()
    assert MANIFEST in pushed[0] and damage(tmp_path / "checkpoint-1") == []

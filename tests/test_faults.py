"""A full disk, a folder that goes, a process that is killed: what was done is still there, and the next start goes
on."""

import multiprocessing
import os
import random
import resource
import shutil
import time

import pytest
import torch
from transformers import AutoModelForMaskedLM, TrainerCallback

from hf_distill import CachedTeacher, distillation_report, export_model
from hf_distill.checkpoints import MANIFEST, damage
from hf_distill.cli import main
from hf_distill.errors import CheckpointError, DamagedCacheError
from hf_distill.teachers import caching
from hf_distill.whole_files import is_half_written, write_whole_model
from tests.cache.small_caches import contents
from tests.teachers.test_cached import cached
from tests.tiny_jobs import put_teacher
from tests.tiny_models import PaddingCollator, model_for, rows_for
from tests.tiny_trainers import trainer_for


SAVING = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1}

forks = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # one thread of ours computes
pytestmark = pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning", "ignore:.*LeafSpec:FutureWarning")
"""Of torch's own pytree, which Transformers' exporters use."""


@pytest.fixture
def full_disk():
    """A function by which no file can be longer than so many bytes, until it is called with None."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(num_bytes):
        resource.setrlimit(resource.RLIMIT_FSIZE, before if num_bytes is None else (num_bytes, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Before(TrainerCallback):
    """Calls a function once, before a step."""

    def __init__(self, step, call):
        self.step, self.call = step, call

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            self.call()


# ---- Training -------------------------------------------------------------------------------------------------------


def test_a_folder_that_vanishes_in_the_middle_of_training_is_made_again(tmp_path):
    folder = tmp_path / "run"
    trainer = trainer_for(folder, **SAVING, callbacks=[Before(3, lambda: shutil.rmtree(folder))])
    trainer.train()
    assert [path.name for path in folder.iterdir()] == ["checkpoint-3"]
    assert damage(folder / "checkpoint-3") == [] and (folder / "checkpoint-3" / MANIFEST).is_file()


def test_a_folder_that_becomes_unwritable_in_the_middle_of_training(tmp_path):
    """Permissions do not bind the superuser, under whom tests may run; a file in its place binds everyone."""
    folder, moved = tmp_path / "run", tmp_path / "moved"

    def replace():
        folder.rename(moved)
        folder.write_text("no folder")

    trainer = trainer_for(folder, **SAVING, callbacks=[Before(3, replace)])
    with pytest.raises(CheckpointError, match=r"run cannot be written \(NotADirectoryError"):
        trainer.train()
    folder.unlink()
    moved.rename(folder)
    resumed = trainer_for(folder, **SAVING)
    resumed.train(resume_from_checkpoint=True)
    assert resumed._initial_global_step == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_a_folder_that_becomes_read_only_in_the_middle_of_training(tmp_path):
    folder = tmp_path / "run"
    trainer = trainer_for(folder, **SAVING, callbacks=[Before(3, lambda: folder.chmod(0o500))])
    try:
        with pytest.raises(CheckpointError, match="may not be written to"):
            trainer.train()
    finally:
        folder.chmod(0o700)


# ---- Caches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 200, 900])
def test_a_full_disk_while_a_cache_is_built(tmp_path, full_disk, monkeypatch, limit):
    monkeypatch.setattr(caching, "MAX_SHARD_ROWS", 3)
    whole = contents(cached(tmp_path / "whole").cache.path)
    full_disk(limit)
    with pytest.raises(OSError):
        cached(tmp_path / "cache")
    full_disk(None)
    assert not (tmp_path / "cache").exists()
    cached(tmp_path / "cache")
    assert contents(tmp_path / "cache") == whole


def test_a_folder_that_vanishes_while_a_cache_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr(caching, "MAX_SHARD_ROWS", 3)
    whole = contents(cached(tmp_path / "whole").cache.path)
    teacher, calls = model_for("single_label", 2), []

    def vanish(module, args):
        calls.append(module)
        if len(calls) == 3:  # once to see what an answer is, and then for two of three shards
            shutil.rmtree(tmp_path / "cache.partial")

    hook = teacher.register_forward_pre_hook(vanish)
    with pytest.raises(OSError):
        cached(tmp_path / "cache", teacher=teacher)
    hook.remove()
    cached(tmp_path / "cache", teacher=teacher)
    assert contents(tmp_path / "cache") == whole


def test_a_cache_that_vanishes_while_it_is_read(tmp_path):
    teacher = model_for("single_label", 2)
    cached(tmp_path / "cache", teacher=teacher)
    trainer = trainer_for(
        tmp_path / "run",
        teacher=tmp_path / "cache",
        callbacks=[Before(2, lambda: shutil.rmtree(tmp_path / "cache"))],
        max_steps=4,
    )
    trainer.train()  # what is mapped into memory stays
    assert trainer.state.global_step == 4
    with pytest.raises(ValueError, match="is no cache"):
        CachedTeacher(tmp_path / "cache")


def test_a_shard_that_is_cut_while_it_is_read(tmp_path, monkeypatch):
    """A row that was not looked at yet is found to be gone, or damaged."""
    monkeypatch.setattr(caching, "MAX_SHARD_ROWS", 3)
    reader = cached(tmp_path / "cache").cache
    shard = sorted((tmp_path / "cache").glob("shard-*"))[2]
    shard.write_bytes(shard.read_bytes()[:100])
    keys = [bytes(key) for number in range(2) for key in reader._shard(number).keys()]  # noqa: SIM118 - an array
    for number in reader.find(keys):
        reader.row(int(number), keys[int(number)])
    with pytest.raises(DamagedCacheError):
        reader._shard(2)


# ---- Reports, exports and students ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_full_disk_or_a_vanished_folder_while_a_report_is_written(tmp_path, full_disk):
    trainer = trainer_for(tmp_path / "run", eval_dataset=rows_for("single_label"))
    trainer.train()
    report = distillation_report(trainer)
    for limit in (0, 2000, 60_000):
        full_disk(limit)
        with pytest.raises(OSError):
            report.save(tmp_path / "report")
        full_disk(None)
        assert not (tmp_path / "report" / "report.html").exists()  # which comes last
    shutil.rmtree(tmp_path / "report")
    page = report.save(tmp_path / "report")
    assert "</html>" in page.read_text()
    assert not list((tmp_path / "report").glob("*.tmp"))


def batches():
    rows = [{name: value for name, value in row.items() if name != "labels"} for row in rows_for("single_label")]
    return [PaddingCollator()(rows[:4])]


def exported_on_a_full_disk(path, seed):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    export_model(model_for("single_label", seed), batches(), path, format="torch")


@pytest.mark.slow
@forks
def test_a_full_disk_while_a_model_is_exported(tmp_path):
    """Torch's writer of archives aborts the process then, so it is another one; what stands there is whole."""
    path = tmp_path / "program"
    assert ended(exported_on_a_full_disk, path, 1) != 0
    assert not path.exists()
    export_model(model_for("single_label", 1), batches(), path, format="torch")
    before = contents(path)
    assert ended(exported_on_a_full_disk, path, 3) != 0
    assert contents(path) == before


def ended(call, *args):
    """The exit code of a process that makes a call."""
    process = multiprocessing.get_context("fork").Process(target=call, args=args)
    process.start()
    process.join()
    return process.exitcode


def killed(call, seconds):
    """Whether a call in a process of its own was killed after so many seconds, before its end."""
    process = multiprocessing.get_context("fork").Process(target=call)
    process.start()
    process.join(seconds)
    was_killed = process.exitcode is None
    process.kill()
    process.join()
    assert was_killed or process.exitcode == 0
    return was_killed


@pytest.mark.slow
@forks
def test_an_export_that_is_killed_leaves_the_earlier_one_or_the_new_one(tmp_path):
    models, path, draw = [model_for("single_label", seed) for seed in (1, 2)], tmp_path / "program", random.Random(0)
    start = time.perf_counter()
    export_model(models[0], batches(), path, format="torch")
    seconds = time.perf_counter() - start
    names = contents(path).keys()
    for _ in range(6):
        killed(lambda: export_model(models[1], batches(), path, format="torch"), draw.uniform(0, seconds))
        assert not path.exists() or contents(path).keys() == names
    exported = export_model(models[1], batches(), path, format="torch")
    assert exported.max_difference < 1e-4


@pytest.mark.slow
@forks
def test_a_model_that_is_killed_while_it_is_written_loads_whole_or_not_at_all(tmp_path):
    """Also over an earlier one of the same shapes, whose weights would else go with the new configuration."""
    models, out, draw = [model_for("single_label", seed) for seed in (1, 1)], tmp_path / "model", random.Random(0)
    for label, model in zip(("a", "b"), models, strict=True):
        model.config.id2label = {0: label, 1: "c", 2: "d"}
    torch.nn.init.ones_(models[1].classifier.weight)
    start = time.perf_counter()
    assert ended(lambda: write_whole_model(out, models[0].save_pretrained)) == 0
    seconds = time.perf_counter() - start
    kills = loaded = 0
    for number in range(200):  # a machine that others use too is slower at times
        if number >= 40 and kills > 5 and loaded > 5:
            break
        model = models[number % 2]
        kills += killed(
            lambda model=model: write_whole_model(out, model.save_pretrained), draw.uniform(0, 2) * seconds
        )
        try:
            found = type(model).from_pretrained(out)
        except OSError:  # there are no weights
            continue
        loaded += 1
        expected = models["ab".index(found.config.id2label[0])].state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in found.state_dict().items())
    assert kills > 5 and loaded > 5
    write_whole_model(out, models[0].save_pretrained)
    assert not is_half_written(out)


@forks
def test_a_student_that_is_killed_is_made_by_the_same_command(tmp_path, capsys):
    put_teacher(tmp_path / "teacher", "fill-mask")
    words = ["student", "--teacher", str(tmp_path / "teacher"), "--num_hidden_layers", "2", "--output_dir"]
    out = tmp_path / "student"
    assert main([*words, str(out)]) == 0
    expected = AutoModelForMaskedLM.from_pretrained(out).state_dict()
    aside = tmp_path / ".student.tmp"
    shutil.copytree(out, aside)
    (out / "config.json").unlink()  # as a writer leaves it that is killed before its end
    assert main([*words, str(out)]) == 0
    found = AutoModelForMaskedLM.from_pretrained(out).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    assert not aside.exists()
    assert main([*words, str(out)]) == 1
    assert "which would be lost" in capsys.readouterr().err


@pytest.mark.parametrize("limit", [0, 500, 5000])
def test_a_full_disk_while_a_student_is_written(tmp_path, full_disk, capsys, limit):
    put_teacher(tmp_path / "teacher", "fill-mask")
    out = tmp_path / "student"
    words = ["student", "--teacher", str(tmp_path / "teacher"), "--output_dir", str(out), "--num_hidden_layers", "2"]
    full_disk(limit)
    assert main(words) == 1
    full_disk(None)
    assert capsys.readouterr().err.count("\n") >= 1
    assert not out.exists()
    assert main(words) == 0
    assert isinstance(AutoModelForMaskedLM.from_pretrained(out), torch.nn.Module)

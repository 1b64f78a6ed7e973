"""What stops a write leaves the old file."""

import pytest

from hf_distill import whole_files
from hf_distill.whole_files import move_whole, write_whole, write_whole_model


def test_a_file_is_written_whole(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    write_whole(path, "old")
    write_whole(path, "new")
    assert [each.name for each in path.parent.iterdir()] == ["a.txt"]
    assert path.read_text() == "new"


def test_what_fails_before_the_rename_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_whole(path, "old")

    def stop(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(whole_files.os, "fsync", stop)
    with pytest.raises(OSError, match="no space left"):
        write_whole(path, "new")
    assert path.read_text() == "old"


def test_a_folder_is_moved_too(tmp_path):
    (tmp_path / "aside").mkdir()
    (tmp_path / "aside" / "a.txt").write_text("a")
    move_whole(tmp_path / "aside", tmp_path / "there")
    assert [each.name for each in tmp_path.iterdir()] == ["there"]


def saving(*names):
    def save(folder):
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(f"{name}, new")

    return save


def test_a_model_is_written_with_its_weights_last(tmp_path, monkeypatch):
    """Over one of another number of files, too: `from_pretrained` would take an earlier single file for the shards."""
    folder, moved = tmp_path / "deep" / "model", []

    def move(source, target):
        assert not list(folder.glob("*.safetensors*")) or "safetensors" in target.name
        moved.append(target.name)
        move_whole(source, target)

    monkeypatch.setattr(whole_files, "move_whole", move)
    shards = ["model-1-of-2.safetensors", "model-2-of-2.safetensors"]
    for weights in (["model.safetensors"], [*shards, "model.safetensors.index.json"], ["model.safetensors"]):
        write_whole_model(folder, saving(*weights, "config.json", "parts/a"))
        assert set(moved[: -len(weights)]) == {"config.json", "parts"}
        assert moved[-1] == weights[-1] and set(moved[-len(weights) :]) == set(weights)
        assert {each.name for each in folder.iterdir()} == {*weights, "config.json", "parts"}
        moved.clear()
    assert [each.name for each in folder.parent.iterdir()] == ["model"]


def test_a_model_that_is_not_written_to_the_end_leaves_the_earlier_one(tmp_path):
    (tmp_path / "notes").write_text("mine")
    write_whole_model(tmp_path / "model", saving("config.json"))

    def stop(folder):
        saving("config.json", "model.safetensors")(folder)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_whole_model(tmp_path / "model", stop)
    assert [each.name for each in (tmp_path / "model").iterdir()] == ["config.json"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model", "notes"]

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


def test_a_model_is_written_with_its_configuration_last(tmp_path, monkeypatch):
    folder, moved = tmp_path / "deep" / "model", []

    def move(source, target):
        moved.append((target.name, (folder / "config.json").exists()))
        move_whole(source, target)

    monkeypatch.setattr(whole_files, "move_whole", move)
    for _ in range(2):
        write_whole_model(folder, saving("config.json", "model.safetensors", "parts/a"))
    assert not any(has_configuration for _, has_configuration in moved)
    assert [name for name, _ in moved] == 2 * ["model.safetensors", "parts", "config.json"]
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

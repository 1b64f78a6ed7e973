"""What stops a write leaves the old file."""

import pytest

from hf_distill import whole_files
from hf_distill.whole_files import move_whole, write_whole


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

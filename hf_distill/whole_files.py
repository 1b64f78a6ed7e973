"""Files that are there as a whole or not at all, whatever stops the process that writes them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path


WEIGHTS = "model*.safetensors*"
"""The weights that `from_pretrained` looks for: in one file, or in shards with an index."""


def write_whole(path: Path, text: str) -> None:
    """Write a file such that a killed process, or a machine without power, leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.tmp")
    aside.write_text(text, encoding="utf-8")
    move_whole(aside, path)


def move_whole(source: Path, target: Path) -> None:
    """Rename a file or a folder when it is on the disk, and not in the system's memory alone."""
    for path in (source, source.parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    os.replace(source, target)


def write_whole_model(folder: Path, save: Callable[[Path], object]) -> None:
    """Write a model's folder such that it loads only when all of it is there.

    Everything is written aside. Then the weights go first and come last, their index last of all: without weights
    nothing loads, while without a configuration a model's class takes its defaults.

    Args:
        folder: where the model is to be; what else lies there stays.
        save: writes it into the folder that it is given.
    """
    aside = _aside(folder)
    shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
    aside.mkdir(parents=True)
    try:
        save(aside)
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in folder.glob(WEIGHTS):
            earlier.unlink()
        for path in sorted(aside.iterdir(), key=lambda path: (path.match(WEIGHTS), path.suffix == ".json")):
            if path.is_dir() and (folder / path.name).is_dir():
                shutil.rmtree(folder / path.name)
            move_whole(path, folder / path.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def is_half_written(folder: Path) -> bool:
    """Whether a process was killed while it wrote a model there."""
    return _aside(folder).is_dir()


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.tmp")

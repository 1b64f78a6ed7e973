"""Files that are there as a whole or not at all, whatever stops the process that writes them."""

import os
from pathlib import Path


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

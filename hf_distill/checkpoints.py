"""What a checkpoint's folder held when it was finished: its files, their lengths and their checksums."""

import json
import os
import re
import zlib
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_distill.whole_files import write_whole


MANIFEST = "checkpoint_manifest.json"
"""The file of a checkpoint that lists the others. It is written last, so a folder without it was never finished."""

OWN_ENTRY = "DistillationTrainer"
"""Where a checkpoint's `trainer_state.json` keeps what is ours; another Trainer's checkpoint has no such entry."""

CHUNK_BYTES = 2**22


def write_manifest(folder: Path) -> None:
    """Declare the checkpoint finished, when all of it is on the disk and not in the system's memory alone."""
    files = {name: _summary(path, to_disk=True) for name, path in _files(folder).items()}
    write_whole(folder / MANIFEST, json.dumps({"files": files}, indent=1))


def checkpoints(output_dir: str | Path) -> list[Path]:
    """The checkpoints in a folder, finished or not, the last step first."""
    numbered = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
    found = [(int(match[1]), path) for path in Path(output_dir).glob("*") if (match := numbered.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True) if path.is_dir()]


def is_unfinished(folder: Path) -> bool:
    """Whether the checkpoint was being written when its process ended.

    Without a manifest, the checkpoint of another Trainer counts as finished if its last file can be read.
    """
    if (folder / MANIFEST).is_file():
        return False
    try:
        state = json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        return OWN_ENTRY in state["stateful_callbacks"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return True


def damage(folder: Path) -> list[str]:
    """What differs from the manifest, a file each; nothing where there is no manifest to compare with."""
    if not (folder / MANIFEST).is_file():
        return []
    try:
        promised = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        promised = {str(name): (promised[name]["bytes"], promised[name]["crc32"]) for name in promised}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return [f"{MANIFEST} cannot be read"]
    present = _files(folder)
    faults = []
    for name, (size, checksum) in promised.items():
        if name not in present:
            faults.append(f"{name} is missing")
        elif (found := present[name].stat().st_size) != size:
            faults.append(f"{name} has {found} bytes of {size}")
        elif (own := _summary(present[name])["crc32"]) != checksum:
            faults.append(f"{name} has other contents than were written (crc32 {own} instead of {checksum})")
    return faults


def _files(folder: Path) -> dict[str, Path]:
    """All but the manifest, by their names within the folder."""
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path for name, path in paths.items() if not name.startswith(MANIFEST)}


def _summary(path: Path, to_disk: bool = False) -> dict[str, int | str]:
    """Length and checksum, which tell of accidents and not of forgeries."""
    checksum = length = 0
    with path.open("r+b" if to_disk else "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            checksum, length = zlib.crc32(chunk, checksum), length + len(chunk)
        if to_disk:
            os.fsync(file.fileno())
    return {"bytes": length, "crc32": f"{checksum:08x}"}

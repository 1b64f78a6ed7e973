"""Damaged and forged caches: what is read is what was written, or an error of ours says that it is not.

    python benchmarks/endurance/fuzzed_caches.py

Three caches, of all classes and of the likeliest tokens, are damaged in a file or in their manifest, and read as in a
training. Half of the damage is forged: checksums are made to fit it, so that what is behind them is reached. Nobody
can then say which answer would be right, but it must have the form of one.
"""

import json
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from fuzzing import BYTES, battery, run_script

from hf_distill import cache_teacher, head_of, load_teacher
from hf_distill.cache.manifest import MANIFEST, TEACHER, CachedFile, manifest_checksum
from hf_distill.cache.shards import Row, Shard, all_rows, write_shard
from hf_distill.errors import DistillationError
from hf_distill.functional import forward_kl, on_top_k
from hf_distill.teachers import caching
from hf_distill.types import TopKLogits


sys.path.insert(0, str(Path(__file__).parents[2]))  # a script, not a package

from tests.tiny_models import PaddingCollator, model_for, rows_for


CACHES: dict[str, dict[str, Any]] = {
    "single_label": {"dtype": "float16"},
    "tokens": {"dtype": "uint8"},
    "masked": {"dtype": "float32", "top_k": 5},
}
ROWS_PER_SHARD = 3
NUMBERS = (-1, 0, 1, 2**16, 2**31, 2**31 - 1, 2**62, 2**63, 10**30, 0.5, 1e308, float("nan"))
WORDS = ("", "..", "../x", "/etc/passwd", "teacher/../../x", "shard-00000.arrow", "manifest.json", "\x00", "a" * 9999)
VALUES = (None, True, [], {}, [[]], {"": {}}, *NUMBERS, *WORDS)


class Original:
    """A whole cache, and what is read of it."""

    def __init__(self, folder: Path, task: str) -> None:
        teacher = model_for(task, 2)
        self.path, self.head, rows = folder / task, head_of(teacher), rows_for(task)
        self.batch = PaddingCollator()(rows)
        cache_teacher(teacher, rows, self.path, data_collator=PaddingCollator(), batch_size=3, **CACHES[task])
        self.student = torch.zeros(teacher(**self.batch).logits.shape)
        self.logits = self.read(self.path)

    def read(self, path: Path) -> Any:
        """What a training reads: the teacher's logits, which are then compared with a student's."""
        teacher = load_teacher(path)
        teacher.meet(None, self.head)
        logits = teacher.signals(self.batch).logits
        on_top_k(forward_kl)(self.student, logits, temperature=2.0)
        return logits

    def is_alike(self, logits: Any) -> bool:
        """Whether these are the answers that were written."""
        if isinstance(self.logits, TopKLogits):
            names = ("values", "indices", "tail")
            return all(torch.equal(getattr(logits, name), getattr(self.logits, name)) for name in names)
        return torch.equal(logits, self.logits)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)


# ---- Damage to bytes ------------------------------------------------------------------------------------------------


def damaged_file(folder: Path, draw: random.Random) -> None:
    path = draw.choice(files_of(folder))
    content = draw.choice(BYTES)(path.read_bytes() or b"\0", draw)
    path.write_bytes(content)


# ---- Damage to files ------------------------------------------------------------------------------------------------


def swapped_files(folder: Path, draw: random.Random) -> None:
    first, second = draw.sample(files_of(folder), 2)
    content = first.read_bytes()
    shutil.copy(second, first)
    second.write_bytes(content)


def lost_file(folder: Path, draw: random.Random) -> None:
    draw.choice([*files_of(folder), folder / MANIFEST]).unlink()


def other_kind_of_file(folder: Path, draw: random.Random) -> None:
    path = draw.choice([*files_of(folder), folder / MANIFEST])
    path.unlink()
    draw.choice(
        (Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path))
    )(path)


def damaged_manifest(folder: Path, draw: random.Random) -> None:
    path = folder / MANIFEST
    path.write_bytes(draw.choice(BYTES)(path.read_bytes() or b"\0", draw))


def edited_manifest(folder: Path, draw: random.Random) -> None:
    (folder / MANIFEST).write_text(json.dumps(edited(json.loads((folder / MANIFEST).read_text()), draw)))


def edited(value: Any, draw: random.Random) -> Any:
    """The same with one entry, anywhere in it, lost, added, renamed or become something else."""
    if not isinstance(value, (dict, list)) or not value or draw.random() < 0.1:
        return draw.choice(VALUES)
    value = dict(value) if isinstance(value, dict) else list(value)
    key = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
    match draw.randrange(6):
        case 0:
            del value[key]
        case 1 if isinstance(value, dict):
            value[draw.choice(WORDS)] = value.pop(key)
        case 2 if isinstance(value, list):
            value += draw.choices(VALUES, k=2)
        case _:
            value[key] = edited(value[key], draw)
    return value


# ---- Forgery --------------------------------------------------------------------------------------------------------


def signed(folder: Path) -> None:
    """Sizes and checksums of all files, and of the manifest, as they are now."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        for name in manifest["files"]:
            found = CachedFile.of(folder / name)
            manifest["files"][name] = {"num_bytes": found.num_bytes, "sha256": found.sha256}
        manifest["checksum"] = manifest_checksum(manifest)
        path.write_text(json.dumps(manifest))
    except (OSError, ValueError, TypeError, LookupError):  # damaged beyond that
        return


def signed_manifest(folder: Path) -> None:
    """The checksum of the manifest alone, which may name other files than there are."""
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    if isinstance(manifest, dict):
        path.write_text(json.dumps({**manifest, "checksum": manifest_checksum(manifest)}))


def forged_file(folder: Path, draw: random.Random) -> None:
    damaged_file(folder, draw)
    signed(folder)


def forged_manifest(folder: Path, draw: random.Random) -> None:
    edited_manifest(folder, draw)
    signed_manifest(folder)


def forged_configuration(folder: Path, draw: random.Random) -> None:
    path = folder / TEACHER / "config.json"
    path.write_text(json.dumps(edited(json.loads(path.read_text()), draw)))
    signed(folder)


def forged_rows(folder: Path, draw: random.Random) -> None:
    """Rows with checksums that fit, and other answers, keys or numbers of positions."""
    path = draw.choice(sorted(folder.glob("shard-*")))
    rows = [Row(row.key, row.num_positions, bytes(row.answer)) for row in all_rows([Shard(path)])]
    place = draw.randrange(len(rows))
    row = rows[place]
    rows[place] = draw.choice(
        (
            row._replace(answer=draw.choice(BYTES)(row.answer or b"\0", draw)),
            row._replace(answer=draw.randbytes(len(row.answer))),
            row._replace(num_positions=draw.choice((0, 1, 2**32 - 1))),
            row._replace(key=draw.randbytes(16)),
        )
    )
    if draw.random() < 0.2:
        draw.shuffle(rows)
    write_shard(path, rows[: draw.choice((len(rows), len(rows), len(rows) - 1))])
    signed(folder)


DAMAGES = (damaged_file, swapped_files, lost_file, other_kind_of_file, damaged_manifest, edited_manifest)
FORGERIES = (forged_file, forged_file, forged_manifest, forged_manifest, forged_rows, forged_configuration)


def case(originals: list[Original], scratch: Path, draw: random.Random) -> str:
    """One cache that is damaged or forged, and read."""
    original, change = draw.choice(originals), draw.choice(DAMAGES + FORGERIES)
    folder = scratch / "cache"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original.path, folder)
    change(folder, draw)
    kind = "forged" if change in FORGERIES else "damaged"
    try:
        logits = original.read(folder)
    except DistillationError as error:
        return f"{kind}: {type(error).__name__}"
    if original.is_alike(logits):
        return f"{kind}: read as it was written"
    if change in DAMAGES:
        raise AssertionError(f"{change.__name__} of {original.path.name} is read as something else")
    return f"{kind}: another answer, in the form of one"


def fuzz_caches(folder: Path, num_cases: int, seed: int) -> dict[str, Any]:
    """So many cases; what they left is in the folder."""
    torch.set_num_threads(1)
    caching.MAX_SHARD_ROWS = ROWS_PER_SHARD
    originals = [Original(folder, task) for task in CACHES]
    return battery(lambda draw: case(originals, folder, draw), num_cases, seed)


if __name__ == "__main__":
    run_script(__doc__, "endurance/fuzzed_caches", fuzz_caches)

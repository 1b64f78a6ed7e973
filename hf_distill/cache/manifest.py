"""What a cache says of itself: whose answers it holds, to which inputs, and in which files."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from hf_distill.cache.feature_records import FeatureRecords
from hf_distill.cache.records import DenseRecords, Records, TopKRecords
from hf_distill.errors import ConfigurationError, DamagedCacheError


FORMAT = "hf_distill cache"
FORMAT_VERSION = 2
MANIFEST = "manifest.json"
INDEX = "index.arrow"
TEACHER = "teacher"
"""The folder with the teacher's configuration and tokenizer."""

MAX_MANIFEST_BYTES = 2**26
_BLOCK_BYTES = 2**22

_FILE = re.compile(rf"(shard-\d{{5,9}}\.arrow|{re.escape(INDEX)}|{TEACHER}/[A-Za-z0-9_][\w.-]*)\Z", re.ASCII)
"""What files may be called. No such name leads out of the folder."""

_INCIDENTAL = ("versions.", "files.", "shards.", "teacher.name", "teacher.revision")
"""What does not make a build another one. The teacher's weights do."""

_REMEDY = "Download or build the cache again."


@dataclass(frozen=True)
class CachedFile:
    """One file as it was written."""

    num_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "CachedFile":
        """The file as it is."""
        content = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                content.update(block)
        return cls(path.stat().st_size, content.hexdigest())


@dataclass(frozen=True)
class Manifest:
    """Everything that identifies a cache.

    The first fields make one build the same as another; the files, and the versions they were written by, follow.
    """

    teacher: Mapping[str, Any]
    """`class`, `name`, `revision`, and `weights`, a hash of all of them."""
    tokenizer: str | None
    """A hash of its tokens."""
    head: Mapping[str, Any]
    """How the teacher's outputs were read: the head's `class` and its options."""
    inputs: tuple[str, ...]
    """The entries of a batch by which a row is found."""
    teacher_inputs: tuple[str, ...]
    """All that the teacher would have read, had a batch had it."""
    processing: Mapping[str, Any]
    """The `collator` that made the batches, with its options, and how many `epochs` of its masks there are."""
    data: Mapping[str, Any]
    """`num_rows`, and a `fingerprint` of their number and of some of them."""
    answers: Mapping[str, Any]
    """What is kept of each position: the description of `Records`."""
    rows_per_shard: int
    features: Mapping[str, Any] = field(default_factory=dict)
    """What is kept of layers: the description of `FeatureRecords`; empty if nothing is."""
    versions: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, CachedFile] = field(default_factory=dict)
    shards: Mapping[str, int] = field(default_factory=dict)
    """How many rows each of them has, in their order."""

    def differences(self, other: "Manifest") -> list[str]:
        """What makes two builds different ones, with both values."""
        ours, theirs = (_flat(each.to_dict()) for each in (self, other))
        names = [name for name in (*ours, *theirs) if not name.startswith(_INCIDENTAL)]
        return [
            f"{name}: {ours.get(name)!r} and {theirs.get(name)!r}"
            for name in dict.fromkeys(names)
            if ours.get(name) != theirs.get(name)
        ]

    @property
    def records(self) -> Records:
        """How the rows are written.

        Raises:
            DamagedCacheError: if the description is none of ours.
        """
        known = dict(self.answers)
        kind = known.pop("kind", None)
        try:
            if kind == "dense":
                return DenseRecords(**{**known, "shape": tuple(known["shape"])})
            if kind == "top_k":
                return TopKRecords(**known)
        except (TypeError, KeyError, ConfigurationError) as error:
            raise DamagedCacheError(f"a manifest describes answers as {dict(self.answers)}: {error}") from error
        raise DamagedCacheError(f"a manifest has answers of the kind {kind!r}, and 'dense' and 'top_k' are known.")

    @property
    def feature_records(self) -> FeatureRecords | None:
        """How hidden states are written; None where none are.

        Raises:
            DamagedCacheError: if the description is none of ours.
        """
        return FeatureRecords.from_description(self.features) if self.features else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    def to_json(self) -> str:
        """What is written."""
        return json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """What `to_json` has written. It is data: nothing in it is evaluated, and all of it is checked.

        Raises:
            DamagedCacheError: if it is anything else.
        """
        try:
            known = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DamagedCacheError(f"the manifest of a cache is no JSON: {error}. {_REMEDY}") from error
        kind = (known.get("format"), known.get("format_version")) if isinstance(known, dict) else (None, None)
        if kind != (FORMAT, FORMAT_VERSION):
            raise DamagedCacheError(
                f"the manifest of a cache is of the format {kind[0]!r}, version {kind[1]!r}, and this hf_distill "
                f"{version('hf_distill')} reads {FORMAT!r}, version {FORMAT_VERSION}. {_REMEDY}"
            )
        fields = {name: value for name, value in known.items() if name not in ("format", "format_version")}
        faults = [name for name, is_right in _CHECKS.items() if name not in fields or not is_right(fields[name])]
        faults += sorted(fields.keys() - _CHECKS.keys())
        if faults:
            raise DamagedCacheError(f"the manifest of a cache lacks these fields, or has others in them: {faults}.")
        files = {name: CachedFile(**value) for name, value in fields.pop("files").items()}
        if not fields["shards"].keys() <= files.keys():
            raise DamagedCacheError("the manifest of a cache names shards that are none of its files.")
        for name in ("inputs", "teacher_inputs"):
            fields[name] = tuple(fields[name])
        manifest = cls(**fields, files=files)
        manifest.records.num_bytes(0)
        manifest.feature_records  # noqa: B018 - reading it checks it
        return manifest


def check_file(folder: Path, name: str, expected: CachedFile, whole: bool) -> Path:
    """The path of a file that is as it was written.

    Args:
        whole: whether every byte is looked at, or the size alone.

    Raises:
        DamagedCacheError: if it is not.
    """
    path = folder / name
    size = path.stat().st_size if path.is_file() else None
    if size != expected.num_bytes:
        raise DamagedCacheError(
            f"the file {name} of the cache {str(folder)!r} has {'no' if size is None else size} bytes, and "
            f"{expected.num_bytes} were written. {_REMEDY}"
        )
    if whole and (found := CachedFile.of(path).sha256) != expected.sha256:
        raise DamagedCacheError(
            f"the file {name} of the cache {str(folder)!r} has the SHA-256 {found}, and {expected.sha256} was "
            f"written: it was changed, or damaged on the way. {_REMEDY}"
        )
    return path


def weight_hash(model: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and values of all parameters and buffers."""
    content = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        content.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return content.hexdigest()


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 over all tokens with their numbers, and over what the special ones are for."""
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    known = {"tokens": tokens, "special": {name: str(value) for name, value in tokenizer.special_tokens_map.items()}}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def library_versions() -> dict[str, str]:
    """Of everything that has a say in the bytes of a cache."""
    return {name: version(name) for name in ("hf_distill", "torch", "transformers", "datasets", "pyarrow")}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _are_files(value: Any) -> bool:
    return _is_table(value) and all(
        _FILE.match(name)
        and _is_table(file)
        and file.keys() == {"num_bytes", "sha256"}
        and _is_count(file["num_bytes"])
        and isinstance(file["sha256"], str)
        for name, file in value.items()
    )


def _are_answers(value: Any) -> bool:
    if not _is_table(value):
        return False
    numbers = [value[name] for name in ("k", "num_classes", "num_tails") if name in value] + list(
        value.get("shape", [])
    )
    return all(_is_count(number) and number < 2**31 for number in numbers) and isinstance(value.get("dtype"), str)


_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "teacher": _is_table,
    "tokenizer": lambda value: value is None or isinstance(value, str),
    "head": _is_table,
    "inputs": _are_names,
    "teacher_inputs": _are_names,
    "processing": _is_table,
    "data": _is_table,
    "answers": _are_answers,
    "rows_per_shard": _is_count,
    "features": _is_table,
    "versions": _is_table,
    "files": _are_files,
    "shards": lambda value: _is_table(value) and all(map(_is_count, value.values())),
}

"""Which columns of a data set a task reads."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow.compute as pc
from datasets import Audio, Dataset, Image

from hf_distill.errors import ConfigurationError


ROWS_AT_ONCE = 1000
INPUT_ROLES = ("text", "text_pair", "image", "audio")
ROLES = (*INPUT_ROLES, "label")
"""What a column can be for a task. A question is the text and its context the pair; what is to be written is the
label."""


def find_columns(
    names: Collection[str],
    known_inputs: Sequence[Mapping[str, str]],
    known_labels: Sequence[str],
    given: Mapping[str, str | None],
) -> dict[str, str]:
    """Role → column, for the inputs of a task and, if there is one, its label.

    Args:
        names: the columns of the data set.
        known_inputs: combinations of roles and names that data sets of the task use, in the order of trying.
        known_labels: likewise for the label.
        given: what the user named; as soon as one input is named, all of them are.

    Raises:
        ConfigurationError: if a named column is not there, or none is named and no known combination is, or one stands
            for two roles.
    """
    named = {role: name for role, name in given.items() if name is not None}
    if missing := [f"{role}_column={name!r}" for role, name in named.items() if name not in names]:
        raise ConfigurationError(f"{', '.join(missing)} is no column of the data set, which has {', '.join(names)}.")
    inputs = {role: name for role, name in named.items() if role != "label"}
    if not inputs:
        fitting = (known for known in known_inputs if set(known.values()) <= set(names))
        inputs = dict(next(fitting, {}))
    needed = set.intersection(*(set(known) for known in known_inputs))
    if not needed <= inputs.keys():
        raise ConfigurationError(
            f"it is not clear which column holds the {' and the '.join(sorted(needed - inputs.keys()))}: the data set "
            f"has {', '.join(names)}. Name it by {', '.join(f'`{role}_column`' for role in sorted(needed))}."
        )
    label = named.get("label") or next((name for name in known_labels if name in names), None)
    found = inputs if label is None else {**inputs, "label": label}
    if twice := [name for name, uses in Counter(found.values()).items() if uses > 1]:
        roles = " and ".join(f"{role}_column" for role, name in found.items() if name == twice[0])
        raise ConfigurationError(
            f"{roles} are both {twice[0]!r}: an answer that stands in the question teaches nothing. The data set has "
            f"{', '.join(names)}."
        )
    return found


def check_inputs(rows: Dataset, columns: Mapping[str, str]) -> None:
    """The inputs are texts, pictures and recordings, by what the data set says of its columns, and no text is missing.

    Raises:
        ConfigurationError: if a column holds something else, or lacks the text of a row.
    """
    for role in INPUT_ROLES:
        column = columns.get(role)
        if column is None or column not in rows.column_names:
            continue
        feature: Any = rows.features[column]
        is_kind, kind = KINDS[role.partition("_")[0]]
        if not is_kind(feature):
            raise ConfigurationError(
                f"{role}_column={column!r} holds {feature}, and {kind} are read there. Name another column; the data "
                f"set has {', '.join(rows.column_names)}."
            )
        if kind == TEXTS:
            _check_texts(rows, role, column)


def _check_texts(rows: Dataset, role: str, column: str) -> None:
    is_there = each_of(rows, column, pc.is_valid)
    missing = [row for row, there in zip(source_rows(rows), is_there, strict=True) if not there]
    if missing:
        raise ConfigurationError(
            f"{role}_column={column!r} is empty in row {missing[0]}, and in {len(missing)} of {len(rows)} rows. Fill "
            "them, or leave these rows out."
        )


def each_of(rows: Dataset, column: str, what: Callable[[Any], Any]) -> Iterator[Any]:
    """What a function of Arrow says of each value of a column, which does not become Python objects before."""
    for part in rows.select_columns([column]).with_format("arrow").iter(ROWS_AT_ONCE):
        yield from what(part[column]).to_pylist()


def source_rows(rows: Dataset) -> Iterable[int]:
    """The number of each row in the file or split that it comes from, out of which some may have been drawn."""
    return range(len(rows)) if rows._indices is None else rows._indices.column(0).to_pylist()


def _is_text(feature: Any) -> bool:
    return getattr(getattr(feature, "feature", feature), "dtype", None) in ("string", "large_string")


def _is_recording(feature: Any) -> bool:
    """What `datasets` decodes, its like with `array` and `sampling_rate`, or a list of samples."""
    samples = feature.get("array") if isinstance(feature, dict) else feature
    return isinstance(feature, Audio) or "dtype" in dir(getattr(samples, "feature", None))


TEXTS = "texts"
KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "text": (_is_text, TEXTS),
    "image": (lambda feature: isinstance(feature, Image), "pictures (an `Image` feature)"),
    "audio": (_is_recording, "recordings (an `Audio` feature, or lists of samples)"),
}
"""What a column of a role holds, by its feature, and how that is called."""

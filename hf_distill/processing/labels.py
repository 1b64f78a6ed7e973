"""What a column of labels says, and which class of a model each of its values is."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from itertools import chain
from math import isfinite
from typing import Any, Literal

from datasets import ClassLabel, Dataset
from transformers.utils import logging

from hf_distill.errors import ClassMismatchError, ConfigurationError
from hf_distill.processing.columns import source_rows


logger = logging.get_logger(__name__)

NO_LABEL = (None, -1)
"""What data sets write where a label is not known."""

MAX_WHOLE_NUMBERS = 20
"""So many different whole numbers as floats may be classes that were meant."""

Problem = Literal["single_label_classification", "multi_label_classification", "regression"]


@dataclass(frozen=True)
class Labels:
    """The labels of a data set, as its values stand in the rows."""

    problem: Problem
    values: tuple[Hashable, ...]
    """The classes, in the order of their ids; none of a regression."""
    names: tuple[str, ...] | None
    """What they are called; None where the data set has bare numbers."""

    def configuration(self) -> dict[str, Any]:
        """The fields of a model's configuration that make a head for these labels."""
        if self.problem == "regression":
            return {"num_labels": 1, "problem_type": self.problem}
        names = self.names or tuple(f"LABEL_{value}" for value in self.values)
        return {
            "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)},
            "problem_type": self.problem,
        }


def labels_of(
    column: str, in_lists: Literal["classes of tokens", "classes of rows"], rows: Dataset, *others: Dataset
) -> Labels:
    """The labels in a column.

    Args:
        column: the column.
        in_lists: what a list of labels is: one for each token, or all that fit a row (a multi-label problem).
        rows, others: names that are no feature of the data set are collected from all of these rows, since a rare
            class may stand in the rows to evaluate on alone.

    Raises:
        ConfigurationError: if the labels are neither classes nor numbers.
    """
    feature: Any = rows.features[column]
    inner = getattr(feature, "feature", None)
    is_multi = inner is not None and in_lists == "classes of rows"
    problem: Problem = "multi_label_classification" if is_multi else "single_label_classification"
    feature = feature if inner is None else inner
    if isinstance(feature, ClassLabel):
        return Labels(problem, tuple(range(feature.num_classes)), tuple(feature.names))
    dtype = getattr(feature, "dtype", "")
    if "float" in dtype and inner is None:
        _warn_of_whole_numbers(rows, column)
        for each in (rows, *others):
            _check_numbers(each, column)
        return Labels("regression", (), None)
    is_value = "string" in dtype or "int" in dtype
    values: Iterable[Any] = chain.from_iterable(each[column] for each in (rows, *others)) if is_value else ()
    found = {value for value in (values if inner is None else chain.from_iterable(values)) if value not in NO_LABEL}
    if dtype == "null" or (is_value and inner is None and not found):
        raise ConfigurationError(
            f"label_column={column!r} is empty in all {sum(map(len, (rows, *others)))} rows: there is no class and no "
            "number to learn. Name another column, or leave this one out and learn from the teacher alone (alpha=0)."
        )
    if dtype in ("string", "large_string"):
        return Labels(problem, tuple(sorted(found)), tuple(sorted(found)))
    if dtype == "bool":
        return Labels(problem, (False, True), ("False", "True"))
    if "int" in dtype and found:
        if min(found) < 0:
            raise ConfigurationError(
                f"label_column={column!r} holds {min(found)}, and classes are numbered from 0 on (-1 stands for a row "
                "without a label). Number them so, write them as words, or as floats if they are to be learnt as "
                "numbers."
            )
        return Labels(problem, tuple(range(max(found) + 1)), None)
    raise ConfigurationError(
        f"label_column={column!r} holds {feature}, which is no class and no number. Name another column, or turn its "
        "values into strings, whole numbers (classes) or floats (a regression)."
    )


def _warn_of_whole_numbers(rows: Dataset, column: str) -> None:
    """A class number becomes a float where the column of a file has gaps."""
    found = {value for value in rows[column] if value is not None and value == value}
    if len(found) <= MAX_WHOLE_NUMBERS and all(float(value).is_integer() for value in found):
        logger.warning(
            f"label_column={column!r} holds the floats {', '.join(map(str, sorted(found)))}, which are learnt as "
            "numbers (a regression). If they are classes, write them as words or whole numbers, and leave none empty."
        )


def _check_numbers(rows: Dataset, column: str) -> None:
    """A number that is not known is none, and the loss would be none either."""
    values = zip(source_rows(rows), rows[column], strict=True)
    unknown = [(row, value) for row, value in values if value is None or not isfinite(value)]
    if unknown:
        raise ConfigurationError(
            f"label_column={column!r} holds {unknown[0][1]} in row {unknown[0][0]}, and {len(unknown)} of "
            f"{len(rows)} rows have no number there. Fill them, or leave these rows out."
        )


def class_ids(labels: Labels, config: Any) -> dict[Hashable, int]:
    """Value in the rows → class of the model, by name where both have names.

    Raises:
        ClassMismatchError: if the model lacks one of the classes.
    """
    known = [str(config.id2label[index]) for index in range(config.num_labels)]
    has_names = known != [f"LABEL_{index}" for index in range(len(known))]
    if labels.names is not None and has_names:
        index_of = {_plain(name): index for index, name in enumerate(known)}
        if missing := [name for name in labels.names if _plain(name) not in index_of]:
            raise ClassMismatchError(
                f"the data set has the classes {', '.join(missing)}, and the model knows {', '.join(known)}. Rename "
                "the classes of the data set, leave out their rows, or take a model that was trained on them."
            )
        return {value: index_of[_plain(name)] for value, name in zip(labels.values, labels.names, strict=True)}
    if len(labels.values) > len(known):
        raise ClassMismatchError(
            f"the data set has {len(labels.values)} classes, and the model {len(known)} ({', '.join(known)}). Take a "
            "model that was trained on these classes."
        )
    if has_names or (labels.names is not None and labels.names != tuple(known)):
        logger.warning(
            f"The classes of the data set ({', '.join(map(str, labels.names or labels.values))}) are taken to be in "
            f"the order of the model's ({', '.join(known)}), since one side has no names."
        )
    return {value: index for index, value in enumerate(labels.values)}


def _plain(name: str) -> str:
    return name.strip().casefold()

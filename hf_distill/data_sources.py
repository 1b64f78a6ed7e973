"""Data sets from wherever they are: the Hub, a folder, a file."""

from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError
from transformers.utils import logging

from hf_distill.errors import ConfigurationError, EmptyDatasetError
from hf_distill.spread_rows import spread_rows


logger = logging.get_logger(__name__)

FILE_FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
}
EVALUATION_SPLITS = ("validation", "validation_matched", "dev", "eval", "test")
EVALUATION_SHARE = 0.1
"""Of the training rows, where a data set has no split for evaluation."""


def load_splits(source: str, configuration: str | None = None) -> DatasetDict:
    """Every split of a data set.

    Args:
        source: an id on the Hub; a folder that `datasets` reads, or has written by `save_to_disk`; a file of
            `FILE_FORMATS`.
        configuration: which of its configurations, where it has several.

    Raises:
        ConfigurationError: if it is a file of another format, or the path of one that is not there, or it cannot be
            read.
        EmptyDatasetError: if `datasets` finds no rows in it, or in one of its splits.
    """
    path = Path(source)
    if not path.exists() and (path.suffix in FILE_FORMATS or source.startswith((".", "/", "~"))):
        raise ConfigurationError(
            f"dataset={source!r} is no file and no folder, seen from {Path.cwd()}. An id on the Hub looks like "
            "'stanfordnlp/sst2'."
        )
    if path.is_file() and path.suffix not in FILE_FORMATS:
        raise ConfigurationError(
            f"dataset={source!r} is a file of the format {path.suffix!r}, and these are read: "
            f"{', '.join(FILE_FORMATS)}. A folder of pictures or sounds is given as the folder."
        )
    try:
        loaded = _loaded(source, configuration)
    except DatasetGenerationError as error:
        reason = error.__cause__ or error  # it says itself that an error occurred
        raise ConfigurationError(
            f"dataset={source!r} cannot be read: {type(reason).__name__}: {str(reason).strip()}"
        ) from error
    except (StopIteration, LookupError, ValueError) as error:
        if not isinstance(error, (StopIteration, IndexError)) and "corresponds to no data" not in str(error):
            raise
        raise EmptyDatasetError(
            f"dataset={source!r} has no rows, or a split without any, which `datasets` does not load. Fill it, or "
            "leave that split out."
        ) from error
    return loaded if isinstance(loaded, DatasetDict) else DatasetDict(train=loaded)


def _loaded(source: str, configuration: str | None) -> Any:
    path = Path(source)
    if path.is_file():
        options: dict[str, Any] = {"sep": "\t"} if path.suffix == ".tsv" else {}
        return load_dataset(FILE_FORMATS[path.suffix], data_files=source, **options)
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return load_from_disk(source)
    return load_dataset(source, configuration)


def train_and_evaluation(
    splits: DatasetDict,
    train_split: str | None = "train",
    evaluation_split: str | None = None,
    evaluation_splits: DatasetDict | None = None,
    seed: int = 42,
) -> tuple[Dataset | None, Dataset]:
    """The rows to train on and to evaluate on.

    Args:
        splits: the data set.
        train_split: the split to train on; None if nothing is to be trained.
        evaluation_split: the split to evaluate on; the first of `EVALUATION_SPLITS` that is there, or else a tenth of
            the training rows, which is said once.
        evaluation_splits: another data set to evaluate on.
        seed: draws the tenth.

    Raises:
        ConfigurationError: if there is no such split.
        EmptyDatasetError: if there are too few rows to hold some out.
    """
    train = None if train_split is None else _split(splits, train_split, "train_split")
    others = splits if evaluation_splits is None else evaluation_splits
    if evaluation_split is not None:
        return train, _split(others, evaluation_split, "eval_split")
    found = next((name for name in EVALUATION_SPLITS if name in others), None)
    if found is not None:
        return train, others[found]
    if evaluation_splits is not None or train is None:
        if len(others) == 1:
            ((name, rows),) = others.items()
            if name == "train" and evaluation_splits is None:
                logger.warning(
                    f"The data set has the split 'train' alone, so all of its {len(rows)} rows are evaluated on. A "
                    "model that was trained on some of them looks better than it is: name other rows by "
                    "`eval_split` or `eval_dataset`."
                )
            return train, rows
        raise ConfigurationError(
            f"the data set has the splits {', '.join(others)}, and it is not clear which one to evaluate on. Name it "
            "by `eval_split`."
        )
    if len(train) < 2:
        raise EmptyDatasetError(
            f"{train_split!r} has {len(train)} rows, and no split is there for evaluation: a tenth of them cannot be "
            "held out. Give at least 2, or rows to evaluate on by `eval_split` or `eval_dataset`."
        )
    parts = train.train_test_split(test_size=EVALUATION_SHARE, seed=seed)
    logger.warning(
        f"The data set has the splits {', '.join(splits)} and none for evaluation, so a tenth of {train_split!r} is "
        f"held out ({len(parts['test'])} of {len(train)} rows). Name a split by `eval_split`, or other data by "
        "`eval_dataset`."
    )
    return parts["train"], parts["test"]


def some_rows(rows: Dataset, count: int | None) -> Dataset:
    """At most so many rows, spread over all of them as `spread_rows` says.

    Raises:
        EmptyDatasetError: if there is none.
    """
    if not len(rows) or (count is not None and count < 1):
        raise EmptyDatasetError(
            f"the data set has {len(rows)} rows, of which at most {count} are taken: none is left."
        )
    if count is None or count >= len(rows):
        return rows
    return rows.select(spread_rows(count, len(rows)))


def _split(splits: DatasetDict, name: str, argument: str) -> Dataset:
    if name not in splits:
        raise ConfigurationError(f"{argument}={name!r} is no split of the data set, which has {', '.join(splits)}.")
    return splits[name]

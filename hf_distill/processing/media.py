"""Pictures and recordings with classes. They stay as they are on disk, and become tensors batch by batch."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Audio, Dataset, List
from numpy.typing import NDArray
from torch import Tensor

from hf_distill.errors import ConfigurationError
from hf_distill.processing.columns import each_of, source_rows
from hf_distill.processing.reading import Reading
from hf_distill.raw_columns import padding_of


def classified_media(rows: Dataset, reading: Reading) -> Dataset:
    """The pictures or recordings, and the class of each row."""
    column = reading.columns["image" if "image" in reading.columns else "audio"]
    if isinstance(rows.features[column], Audio):
        rows = rows.cast_column(column, Audio(sampling_rate=reading.processor.sampling_rate))
    if isinstance(rows.features[column], List):
        lengths = each_of(rows, column, pc.list_value_length)
        check_lengths(zip(source_rows(rows), lengths, strict=True), reading.least_samples)
    kept = rows.select_columns([column, *([reading.columns["label"]] if "label" in reading.columns else [])])
    if "label" not in reading.columns:
        return kept
    label = reading.columns["label"]
    ids = [reading.label(value) for value in kept[label]]
    return kept.remove_columns(label).add_column("labels", ids)


@dataclass
class ImageCollator:
    """Pictures, by the image processor of the model."""

    reading: Reading

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        pictures = [row[self.reading.columns["image"]].convert("RGB") for row in rows]
        return {**self.reading.processor(pictures, return_tensors="pt"), **_labels(rows)}


@dataclass
class SoundCollator:
    """Recordings, by the feature extractor of the model."""

    reading: Reading

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        extractor, column = self.reading.processor, self.reading.columns["audio"]
        waves = [wave_of(row[column], extractor.sampling_rate, self.reading.sampling_rate) for row in rows]
        check_lengths(enumerate(map(len, waves)), self.reading.least_samples, " of a batch")
        features = extractor(
            waves, sampling_rate=extractor.sampling_rate, return_tensors="pt", **padding_of(extractor)
        )
        return {**features, **_labels(rows)}


def check_lengths(lengths: Iterable[tuple[int, int | None]], least: int, of_what: str = "") -> None:
    """No recording is shorter than what the model makes one frame of.

    Args:
        lengths: the number of each row, and its samples.
        least: samples.
        of_what: the rows.

    Raises:
        ConfigurationError: if one is shorter.
    """
    for row, length in lengths:
        if length is None or length < least:
            raise ConfigurationError(
                f"the recording in row {row}{of_what} has {length or 0} samples, and the model reads {least} or "
                "more. Leave it out, or pad it with silence."
            )


def wave_of(recording: Any, wanted_rate: int, rate: int | None) -> NDArray[np.float32]:
    """The samples of a recording, whole numbers of 16 bits brought between −1 and 1.

    Args:
        recording: what `datasets` decodes, a dictionary with `array` and `sampling_rate`, or bare samples.
        wanted_rate: the rate that the model reads.
        rate: that of bare samples.

    Raises:
        ConfigurationError: if the recording has another rate, or says none.
    """
    if isinstance(recording, dict):
        recording, rate = recording["array"], recording["sampling_rate"]
    elif hasattr(recording, "get_all_samples"):
        decoded = recording.get_all_samples()
        recording, rate = decoded.data.mean(0).numpy(), decoded.sample_rate
    if rate != wanted_rate:
        raise ConfigurationError(
            f"a recording has sampling_rate={rate}, and the model reads {wanted_rate} samples a second. Name the rate "
            "of bare samples by `sampling_rate`; give others as an `Audio` feature, which `datasets` resamples."
        )
    wave = np.asarray(recording)
    return (wave / 2**15 if np.issubdtype(wave.dtype, np.integer) else wave).astype(np.float32)


def _labels(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    return {"labels": torch.tensor([row["labels"] for row in rows])} if "labels" in rows[0] else {}

"""A teacher that reads the rows in its own way: with its own tokenizer, image size or sampling rate."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import gcd
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase
from transformers.image_utils import is_pil_image

from hf_distill.errors import ConfigurationError, MissingInputError
from hf_distill.heads.base import real_tokens
from hf_distill.heads.character_spans import corresponding_positions, num_characters_read
from hf_distill.raw_columns import IMAGE, TEXT, modalities, padding_of, recording
from hf_distill.types import TEACHER_POSITIONS, TEACHER_PREFIX, Batch


class TeacherInputs:
    """Makes the teacher's inputs out of raw columns of the rows, beside those of the student.

    Args:
        processing_class: the teacher's tokenizer, image processor, feature extractor, or a processor that holds
            several of them.
        input_names: what the teacher reads.
        columns: the raw columns, by modality; from [`raw_columns`].
        max_length: the longest text that the teacher can read; longer ones are cut there.
    """

    def __init__(
        self,
        processing_class: Any,
        input_names: Iterable[str],
        columns: Mapping[str, tuple[str, ...]],
        max_length: int | None = None,
    ) -> None:
        self.processing_class = processing_class
        self.input_names = frozenset(input_names)
        self.columns = columns
        self.max_length = max_length

    @property
    def raw_columns(self) -> frozenset[str]:
        """The columns that are read."""
        return frozenset(name for names in self.columns.values() for name in names)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The teacher's inputs for these rows, under the names that a batch has for them.

        Raises:
            MissingInputError: if a row lacks a column that is read.
        """
        made: dict[str, Any] = {}
        for modality in modalities(self.input_names):
            reader, names = modality.reader_of(self.processing_class), self.columns.get(modality.name)
            if reader is None or names is None:
                continue
            values = [[_value(row, name) for row in rows] for name in names]
            if modality is TEXT:
                made |= self._tokenized(reader, values)
            elif modality is IMAGE:
                made |= reader(images=[_as_colour(image) for image in values[0]], return_tensors="pt")
            else:
                made |= _extracted(reader, values[0])
        return {f"{TEACHER_PREFIX}{name}": value for name, value in made.items() if name in self.input_names}

    def _tokenized(self, tokenizer: PreTrainedTokenizerBase, texts: list[list[str]]) -> dict[str, Any]:
        limits = [limit for limit in (tokenizer.model_max_length, self.max_length) if limit is not None]
        limit = min(limits)
        is_limited = limit < 10**9  # what stands in a tokenizer that knows no limit is larger
        return dict(
            tokenizer(
                *texts,
                truncation=is_limited,
                max_length=limit if is_limited else None,
                padding=True,
                return_tensors="pt",
            )
        )


class TeacherPositions:
    """Finds out which of the teacher's positions has read the text that a position of the student has read.

    Args:
        tokenizers: the student's and the teacher's, fast ones.
        columns: the raw columns, by modality; from [`raw_columns`].

    Raises:
        ConfigurationError: if they do not hold one text.
    """

    def __init__(
        self,
        tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase],
        columns: Mapping[str, tuple[str, ...]],
    ) -> None:
        texts = columns.get(TEXT.name, ())
        if len(texts) != 1:
            raise ConfigurationError(
                "tokens of student and teacher are matched by the characters of one text, and the raw columns of text "
                f"are {list(texts)}. Keep one column that holds the whole text of a row, name it if need be "
                f"(`teacher_columns=`), and leave out columns of tokens for the teacher (`{TEACHER_PREFIX}input_ids`)."
            )
        self.tokenizers = dict(zip(("", TEACHER_PREFIX), tokenizers, strict=True))
        (self.column,) = texts

    def __call__(self, rows: Sequence[Mapping[str, Any]], batch: Batch) -> dict[str, Any]:
        """The entry for a batch of these rows.

        Raises:
            ConfigurationError: if the tokens of a row are not those of its text.
        """
        texts = [_value(row, self.column) for row in rows]
        reads = []
        for prefix, tokenizer in self.tokenizers.items():
            ids, mask = batch[f"{prefix}input_ids"], batch.get(f"{prefix}attention_mask")
            is_real = real_tokens({"input_ids": ids, "attention_mask": mask})
            reads.append(num_characters_read(tokenizer, texts, ids.numpy(), is_real.numpy()))
        return {TEACHER_POSITIONS: torch.from_numpy(corresponding_positions(*reads))}


class DataCollatorWithTeacherInputs:
    """A collator, and beside what it returns the teacher's inputs.

    Columns that are called `teacher_<name>` already, as `datasets.map` can make them once for all epochs, are padded
    and passed on. All others are made here from raw columns.

    Args:
        collator: the student's.
        teacher_inputs: makes those of the teacher.
        hidden_columns: what the student's collator does not get to see.
        teacher_positions: matches the tokens of both, where outputs lie on them.
    """

    def __init__(
        self,
        collator: Callable[[Any], Any],
        teacher_inputs: TeacherInputs,
        hidden_columns: Iterable[str],
        teacher_positions: TeacherPositions | None = None,
    ) -> None:
        self.collator = collator
        self.teacher_inputs = teacher_inputs
        self.teacher_positions = teacher_positions
        self.hidden_columns = frozenset(hidden_columns)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        ready = [name for name in rows[0] if name.removeprefix(TEACHER_PREFIX) in self.teacher_inputs.input_names]
        ready = [name for name in ready if name.startswith(TEACHER_PREFIX)]
        hidden = self.hidden_columns | set(ready)
        batch = self.collator([{name: row[name] for name in row if name not in hidden} for row in rows])
        if ready:
            batch = {**batch, **self._padded(rows, ready)}
        else:
            made = self.teacher_inputs(rows)
            batch = {**batch, **self._shared(batch, made), **made}
        return batch if self.teacher_positions is None else {**batch, **self.teacher_positions(rows, batch)}

    def _padded(self, rows: Sequence[Mapping[str, Any]], names: list[str]) -> dict[str, Any]:
        named = [{name.removeprefix(TEACHER_PREFIX): row[name] for name in names} for row in rows]
        reader: Any = TEXT.reader_of(self.teacher_inputs.processing_class)
        if "input_ids" in named[0] and reader is not None:
            padded = reader.pad(named, return_tensors="pt")
        else:
            padded = {name: torch.stack([torch.as_tensor(row[name]) for row in named]) for name in named[0]}
        return {f"{TEACHER_PREFIX}{name}": value for name, value in padded.items()}

    def _shared(self, batch: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
        """What the teacher reads of the student's own inputs: a modality for which it has no reader of its own."""
        names = [
            name
            for modality in modalities(self.teacher_inputs.input_names)
            for name in modality.inputs & self.teacher_inputs.input_names
            if f"{TEACHER_PREFIX}{name}" not in made and modality.name not in self.teacher_inputs.columns
        ]
        return {f"{TEACHER_PREFIX}{name}": batch[name] for name in names if name in batch}


def _value(row: Mapping[str, Any], name: str) -> Any:
    if name not in row:
        raise MissingInputError(
            f"the teacher reads the column {name!r}, and a row has only {sorted(row)}. Keep that column in every data "
            "set, the evaluation's too."
        )
    return row[name]


def _as_colour(image: Any) -> Any:
    return image.convert("RGB") if is_pil_image(image) else image


def _extracted(extractor: Any, values: list[Any]) -> dict[str, Any]:
    recordings = [recording(value) for value in values]
    rate: int = extractor.sampling_rate
    arrays = [_resampled(array, own, rate) for array, own in recordings]  # type: ignore[misc]  # raw_columns saw to it
    return dict(extractor(arrays, sampling_rate=rate, return_tensors="pt", **padding_of(extractor)))


def _resampled(samples: Any, rate: int, wanted: int) -> Any:
    samples = np.asarray(samples, dtype=np.float32)
    if rate == wanted:
        return samples
    try:
        from scipy.signal import resample_poly
    except ImportError as error:
        raise ConfigurationError(
            f"recordings have a sampling rate of {rate} and the teacher reads {wanted}. Install scipy to have them "
            f"resampled, or cast the column: `dataset.cast_column(name, Audio(sampling_rate={wanted}))`."
        ) from error
    divisor = gcd(rate, wanted)
    return resample_poly(samples, wanted // divisor, rate // divisor).astype(np.float32)

"""Which columns of a data set hold the raw text, image or sound that a teacher reads for itself."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from itertools import permutations
from typing import Any

from transformers import BaseImageProcessor, FeatureExtractionMixin, PreTrainedTokenizerBase
from transformers.image_utils import is_pil_image

from hf_distill.errors import ConfigurationError
from hf_distill.types import TEACHER_PREFIX


MAX_TEXT_COLUMNS = 2
"""A text and its pair."""


@dataclass(frozen=True)
class Modality:
    """One kind of raw data, and who reads it."""

    name: str
    inputs: frozenset[str]
    """What models call the main input that is made of it."""
    part: str
    """Where a processor of several kinds keeps the part that reads this one."""
    reader: type
    """What reads this kind and no other."""
    is_raw: Callable[[Any], bool]
    """Whether a value of a row is of this kind, so that its column is found without being named."""

    def reader_of(self, processing_class: Any) -> Any:
        """The part of a processing class that reads this kind; None if there is none."""
        is_reader = isinstance(processing_class, self.reader)
        return processing_class if is_reader else getattr(processing_class, self.part, None)


def _is_recording(value: Any) -> bool:
    return not isinstance(value, (str, bytes)) and recording(value) is not None


TEXT = Modality(
    "text", frozenset({"input_ids"}), "tokenizer", PreTrainedTokenizerBase, lambda value: isinstance(value, str)
)
IMAGE = Modality("image", frozenset({"pixel_values"}), "image_processor", BaseImageProcessor, is_pil_image)
AUDIO = Modality(
    "audio",
    frozenset({"input_values", "input_features"}),
    "feature_extractor",
    FeatureExtractionMixin,
    _is_recording,
)


def modalities(input_names: Iterable[str]) -> list[Modality]:
    """What a model that reads these inputs is fed with."""
    return [modality for modality in (TEXT, IMAGE, AUDIO) if modality.inputs & set(input_names)]


def raw_columns(
    rows: Sequence[Mapping[str, Any]],
    processing_class: Any,
    input_names: Iterable[str],
    student_tokenizer: PreTrainedTokenizerBase | None = None,
    named: Sequence[str] | None = None,
) -> dict[str, tuple[str, ...]]:
    """The columns of the rows that the teacher's processing class can read, by modality.

    Where the student's tokenizer is at hand, the text is the column, or the two, that gives the student's `input_ids`
    by it, so that both read the same text for certain. Otherwise there must be one column of text alone.

    Args:
        rows: some rows of the data set.
        processing_class: the teacher's.
        input_names: what the teacher reads.
        student_tokenizer: what the student's rows were tokenized by, if it was.
        named: the columns by name, if they are known; they are told apart by what they hold.

    Raises:
        ConfigurationError: if a processing class reads nothing that the teacher reads, or columns are missing, or it
            is not clear which ones are meant.
    """
    input_names = frozenset(input_names)
    wanted = [modality for modality in modalities(input_names) if modality.reader_of(processing_class) is not None]
    if not wanted:
        raise ConfigurationError(
            f"`teacher_processing_class` is a {type(processing_class).__name__}, and the teacher reads "
            f"{sorted(input_names)}, of which it makes nothing. Pass the tokenizer, image processor, feature "
            "extractor or processor that was saved with the teacher."
        )
    if any(f"{TEACHER_PREFIX}{name}" in rows[0] for modality in wanted for name in modality.inputs):
        return {}
    missing = [name for name in named or () if name not in rows[0]]
    if missing:
        raise ConfigurationError(
            f"`teacher_columns` names {missing}, and the rows have {sorted(rows[0])}. Name columns of the data set, "
            "before it drops them."
        )
    return {modality.name: _columns_of(modality, rows, input_names, student_tokenizer, named) for modality in wanted}


def _columns_of(
    modality: Modality,
    rows: Sequence[Mapping[str, Any]],
    input_names: frozenset[str],
    student_tokenizer: PreTrainedTokenizerBase | None,
    named: Sequence[str] | None,
) -> tuple[str, ...]:
    names = [name for name in rows[0] if name not in input_names] if named is None else named
    found = [name for name in names if all(modality.is_raw(row.get(name)) for row in rows)]
    if named is not None and modality is IMAGE and not found:
        found = [name for name in named if not TEXT.is_raw(rows[0][name]) and not AUDIO.is_raw(rows[0][name])]
    most = MAX_TEXT_COLUMNS if modality is TEXT else 1
    if named is not None and 1 <= len(found) <= most:
        return tuple(found)
    if modality is TEXT and named is None and student_tokenizer is not None and "input_ids" in rows[0]:
        tried = (columns for size in range(1, most + 1) for columns in permutations(found, size))
        read = next((columns for columns in tried if _gives_input_ids(rows, columns, student_tokenizer)), None)
        if read is not None:
            return read
        raise ConfigurationError(
            f"the teacher is to tokenize the text for itself, and none of the columns of text {found} (the rows have "
            f"{sorted(rows[0])}) gives the student's `input_ids` by the student's tokenizer, so it is not clear what "
            "the student reads. Keep the column of raw text in the data set, and name it: `teacher_columns=`."
        )
    if len(found) == 1:
        return (found[0],)
    raise ConfigurationError(
        f"the teacher is to read the raw {modality.name} for itself, and the columns {sorted(rows[0])} hold "
        f"{len(found)} of that kind ({found}). Keep the raw column in the data set, and name it: `teacher_columns=`."
    )


def _gives_input_ids(
    rows: Sequence[Mapping[str, Any]], columns: tuple[str, ...], tokenizer: PreTrainedTokenizerBase
) -> bool:
    for row in rows:
        ids = _listed(row["input_ids"])
        mask = _listed(row.get("attention_mask", [1] * len(ids)))
        real = [index for index, is_real in zip(ids, mask, strict=True) if is_real]
        texts = [row[name] for name in columns]
        if tokenizer(*texts, truncation=True, max_length=len(real))["input_ids"] != real:
            return False
    return True


def _listed(values: Any) -> list[Any]:
    listed: list[Any] = values.tolist() if hasattr(values, "tolist") else list(values)
    return listed


def recording(value: Any) -> tuple[Any, int] | None:
    """The samples and the sampling rate of what `datasets.Audio` decodes to, a decoder or a mapping."""
    try:
        return value["array"], int(value["sampling_rate"])
    except (TypeError, KeyError, IndexError, ValueError):
        return None


def padding_of(extractor: Any) -> dict[str, bool]:
    """What asks a feature extractor to pad, where it does not of itself.

    Whisper's pads to the one length that its models read, and only where it is told nothing else.
    """
    padding = signature(extractor.__call__).parameters.get("padding")
    return {"padding": True} if padding is not None and padding.default is False else {}

"""Rows that are one text each, padded at an end."""

from hf_distill.errors import ConfigurationError, MissingInputError
from hf_distill.heads.base import real_tokens
from hf_distill.types import TEACHER_PREFIX, Batch


PACKED = ("cu_seq_lens_q", "seq_idx")
"""What a batch has where several texts lie in one row."""


def text_spans(batch: Batch) -> dict[int, tuple[int, int]]:
    """Where the real tokens of each row begin and end, without rows that have none.

    Raises:
        MissingInputError: if the batch has no `input_ids`.
        ConfigurationError: if a row is anything but one text, or is read by the teacher in its own way.
    """
    _check_rows(batch)
    spans = {}
    for row, real in enumerate(real_tokens(batch).cpu()):
        places = real.nonzero().flatten().tolist()
        if not places:
            continue
        spans[row] = places[0], places[-1] + 1
        if places[-1] + 1 - places[0] != len(places):
            raise ConfigurationError(
                f"row {row} has padding between its tokens: {len(places)} real ones in {places[-1] + 1 - places[0]} "
                "places. Pad at one end, or pass a model as `teacher=`."
            )
    return spans


def _check_rows(batch: Batch) -> None:
    """Each row is one text of tokens."""
    if batch.get("input_ids") is None:
        raise MissingInputError(
            f"a `ServedTeacher` reads 'input_ids', and the batch has only {sorted(batch)}. Keep that column in the "
            "data set."
        )
    if own := sorted(name for name in batch if name.startswith(TEACHER_PREFIX)):
        raise ConfigurationError(
            f"a `ServedTeacher` reads the student's tokens, and the batch has inputs of the teacher's own, {own}. "
            "Leave them and `teacher_processing_class` out."
        )
    mask = batch.get("attention_mask")
    if packed := [name for name in PACKED if batch.get(name) is not None]:
        what = f"{packed}, which pack several texts into one row"
    elif mask is not None and mask.ndim != 2:
        what = f"an `attention_mask` of shape {tuple(mask.shape)}, in which each token may see others"
    elif _starts_over(batch):
        what = "`position_ids` that start over within a row"
    else:
        return
    raise ConfigurationError(
        f"the batch has {what}, and a server reads each row as one text. Give each text a row of its own, or pass a "
        "model as `teacher=`."
    )


def _starts_over(batch: Batch) -> bool:
    positions = batch.get("position_ids")
    if positions is None:
        return False
    real = real_tokens(batch)
    return bool(((positions.diff() != 1) & real[:, 1:] & real[:, :-1]).any())

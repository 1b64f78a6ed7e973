"""Which position of the teacher has read what a position of the student has read, where their tokenizers differ.

Two causal language models predict at the same point of a text where what they have read ends after the same character.
A token counts as such a point if it ends on a whole character. Whatever follows it in the text starts with the next
token, or there are only blanks between: some tokenizers leave blanks out, others count them to the token before or
behind. So these are no points:

- the bytes of a character before its last one, which all have the span of that character;
- a prefix of a word that a tokenizer makes up, such as `▁`, which has the span of what it stands before;
- a token behind which a normalizer takes out more than blanks, or puts characters together, so that its span does not
  say what was read.

Special tokens read nothing. The last one before the text is the point where nothing has been read. Behind the end of
the text, in padding, and in an empty text there are no points.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from hf_distill.errors import ConfigurationError


NOTHING = -1
"""Stands for the position, or the number of characters, of a token that is no point to compare at."""


def corresponding_positions(student_reads: NDArray[Any], teacher_reads: NDArray[Any]) -> NDArray[np.int64]:
    """For every position of the student, the teacher's that has read the same characters; -1 where there is none.

    Shapes: B batch, L_s, L_t tokens of student and teacher, padding included.

    Args:
        student_reads: `(B, L_s)`, from [`num_characters_read`].
        teacher_reads: `(B, L_t)`, likewise.

    Returns:
        `(B, L_s)`. No position of the teacher occurs twice in a row.

    Example:

        >>> student = np.array([[0, 3, -1, 7, 9]])  # 'the', a part of a character, its end, …
        >>> teacher = np.array([[3, 5, 7, 9, -1]])
        >>> corresponding_positions(student, teacher)
        array([[-1,  0, -1,  2,  3]])
    """
    most = max((int(reads.max()) for reads in (student_reads, teacher_reads) if reads.size), default=NOTHING)
    position_at = np.full((len(teacher_reads), most + 2), NOTHING, dtype=np.int64)
    rows, positions = np.nonzero(teacher_reads != NOTHING)
    position_at[rows, teacher_reads[rows, positions]] = positions
    # What has read nothing of that kind looks into the last column, which stays empty.
    return np.take_along_axis(position_at, student_reads.astype(np.int64), axis=1)


def num_characters_read(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], input_ids: NDArray[Any], is_real: NDArray[Any]
) -> NDArray[np.int64]:
    """After how many characters of its text each token ends; -1 for tokens at which models cannot be compared.

    Shapes: B batch, L tokens, padded on either side or both.

    Args:
        tokenizer: what made the ids; a fast one, since others know no characters.
        texts: B texts, whole, as they were before any normalization.
        input_ids: `(B, L)`. A row may hold the tokens of a text from its start on, with special tokens around.
        is_real: bool `(B, L)`, False at padding.

    Returns:
        `(B, L)`. No number but -1 occurs twice in a row.

    Raises:
        ConfigurationError: if the ids are not those of the text.
    """
    special_ids = [index for index in tokenizer.all_special_ids if index != tokenizer.unk_token_id]
    # One token more than any row holds, to know where the text goes on behind a row that was truncated.
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_offsets_mapping=True,
        truncation=True,
        max_length=int(is_real.sum(axis=1).max(initial=0)) + 1,
    )
    reads = np.full(input_ids.shape, NOTHING, dtype=np.int64)
    for row, text in enumerate(texts):
        real = np.flatnonzero(is_real[row])
        ids, expected = input_ids[row, real], np.array(encoded["input_ids"][row], dtype=np.int64)
        (first, last), (start, _) = (_without_special(each, special_ids) for each in (ids, expected))
        _check_same(tokenizer, text, ids[first:last], expected[start : start + last - first])
        spans = np.array(encoded["offset_mapping"][row], dtype=np.int64).reshape(-1, 2)[start:]
        if first < last:
            reads[row, real[first:last]] = _ends(spans, text)[: last - first]
        if 0 < first < last and not text[: spans[0, 0]].strip():
            reads[row, real[first - 1]] = 0
    return reads


def _check_same(tokenizer: Any, text: str, ids: NDArray[Any], expected: NDArray[Any]) -> None:
    if np.array_equal(ids, expected):
        return
    common = min(len(ids), len(expected))
    first = next((index for index in range(common) if ids[index] != expected[index]), common)
    says = f"token id {expected[first]}" if first < common else "no more tokens"
    raise ConfigurationError(
        f"a row holds token id {ids[first]} in place {first}, where its text {text[:60]!r} gives {says} by "
        f"{type(tokenizer).__name__}, so it is not clear which characters a token stands for. Name the column that "
        "was tokenized as `teacher_columns=`, tokenize each text for itself, and truncate it at its end alone."
    )


def _without_special(ids: NDArray[Any], special_ids: list[int]) -> tuple[int, int]:
    """From where to where the tokens go without the special ones before and behind."""
    ordinary = np.flatnonzero(~np.isin(ids, special_ids))
    return (int(ordinary[0]), int(ordinary[-1]) + 1) if len(ordinary) else (len(ids), len(ids))


def _ends(spans: NDArray[np.int64], text: str) -> NDArray[np.int64]:
    """Where each token of a text ends, if that is where the text goes on."""
    ends = spans[:, 1]
    next_starts, next_ends = np.append(spans[1:, 0], len(text)), np.append(ends[1:], len(text) + 1)
    goes_on = [not text[end:start].strip() for end, start in zip(ends.tolist(), next_starts.tolist(), strict=True)]
    return np.where(np.array(goes_on) & (ends > 0) & (ends <= next_starts) & (ends < next_ends), ends, NOTHING)

"""Questions with contexts, as token ids with the place of the answer, and the score of answers as text."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from transformers import EvalPrediction
from transformers.utils import logging

from hf_distill.processing.reading import Reading


logger = logging.get_logger(__name__)

MAX_ANSWER_TOKENS = 30


def answered_questions(rows: Dataset, reading: Reading) -> Dataset:
    """Question and context in one row of tokens, the context cut at the maximum length.

    `start_positions` and `end_positions` are the first and the last token of the first answer, both 0 where there is
    no answer or it was cut off. `offsets` are the characters of the context that each token stands for.
    """
    question, context = reading.text_columns
    answers = reading.columns.get("label")

    def encode(batch: dict[str, list[Any]]) -> dict[str, Any]:
        encoded = reading.processor(
            batch[question],
            batch[context],
            truncation="only_second",
            max_length=reading.max_length,
            return_offsets_mapping=True,
        )
        offsets = encoded.pop("offset_mapping")
        in_context = [encoded.sequence_ids(row) for row in range(len(offsets))]
        found = {
            **encoded,
            "offsets": [
                [span if sequence == 1 else (-1, -1) for span, sequence in zip(spans, sequences, strict=True)]
                for spans, sequences in zip(offsets, in_context, strict=True)
            ],
        }
        if answers is not None:
            places = [_place(encoded, row, answer) for row, answer in enumerate(batch[answers])]
            found["start_positions"], found["end_positions"] = map(list, zip(*places, strict=True))
        return found

    processed = rows.map(encode, batched=True, desc="Tokenizing")
    if answers is not None:
        lost = sum(
            place == 0 and bool(answer["text"])
            for place, answer in zip(processed["start_positions"], processed[answers], strict=True)
        )
        if lost:
            logger.warning(
                f"{lost} of {len(processed)} answers lie beyond {reading.max_length} tokens, and count as no answer. "
                "Raise max_length, if the model reads more."
            )
    return processed


def _place(encoded: Any, row: int, answer: dict[str, Any]) -> tuple[int, int]:
    if not answer["text"]:
        return 0, 0
    begin = answer["answer_start"][0]
    first = encoded.char_to_token(row, begin, sequence_index=1)
    last = encoded.char_to_token(row, begin + len(answer["text"][0]) - 1, sequence_index=1)
    return (0, 0) if first is None or last is None else (first, last)


def answer_scores(rows: Dataset, reading: Reading) -> Callable[[EvalPrediction], dict[str, float]]:
    """Exact match and F1 of words in percent, with the closest answer, as SQuAD's.

    References: Rajpurkar et al.: SQuAD: 100,000+ Questions for Machine Comprehension of Text, 2016,
        https://arxiv.org/abs/1606.05250, section 6.1.
    """
    context = reading.columns["text_pair"]

    def scores(prediction: EvalPrediction) -> dict[str, float]:
        outputs: Any = prediction.predictions
        starts, ends = outputs[:2]
        found = []
        for row, start, end in zip(rows, starts, ends, strict=True):
            offsets = np.array(row["offsets"])
            first, last = best_span(start[: len(offsets)], end[: len(offsets)], offsets[:, 0] >= 0)
            text = row[context][offsets[first, 0] : offsets[last, 1]]
            found.append(_text_scores(text, row[reading.columns["label"]]["text"]))
        means = np.mean(found, axis=0)
        return {"exact_match": float(means[0]), "f1": float(means[1])}

    return scores


def best_span(starts: NDArray[Any], ends: NDArray[Any], is_context: NDArray[Any]) -> tuple[int, int]:
    """The likeliest pair of a start and an end of the context, the end neither before it nor far behind."""
    scores = np.where(np.outer(is_context, is_context), starts[:, None] + ends[None, :], -np.inf)
    near = np.triu(np.ones_like(scores, dtype=bool)) & ~np.triu(np.ones_like(scores, dtype=bool), MAX_ANSWER_TOKENS)
    first, last = np.unravel_index(np.where(near, scores, -np.inf).argmax(), scores.shape)
    return int(first), int(last)


def _text_scores(prediction: str, answers: Sequence[str]) -> tuple[float, float]:
    predicted = _words(prediction)
    exact = f1 = 0.0
    for answer in map(_words, answers or [""]):
        shared = sum((Counter(predicted) & Counter(answer)).values())
        total = len(predicted) + len(answer)
        exact, f1 = max(exact, float(predicted == answer)), max(f1, 2 * shared / total if total else 1.0)
    return exact, f1


def _words(text: str) -> list[str]:
    """Lower case, without punctuation, articles and extra blanks."""
    letters = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", letters).split()

import logging

import numpy as np
import pytest
from datasets import Dataset
from transformers import EvalPrediction

from hf_distill.processing import Reading
from hf_distill.processing.answers import MAX_ANSWER_TOKENS, answer_scores, answered_questions, best_span
from tests.text_tokenizers import wordpiece_tokenizer


TOKENIZER = wordpiece_tokenizer()
COLUMNS = {"text": "question", "text_pair": "context", "label": "answers"}
CONTEXT = "the quick brown fox jumps over the lazy dog"


def rows(*answers):
    spans = [
        {"text": [answer] if answer else [], "answer_start": [CONTEXT.index(answer)] if answer else []}
        for answer in answers
    ]
    return Dataset.from_dict({"question": ["who"] * len(spans), "context": [CONTEXT] * len(spans), "answers": spans})


def test_the_place_of_an_answer_says_its_characters():
    processed = answered_questions(rows("brown fox", "dog", ""), Reading(TOKENIZER, COLUMNS))
    for row, answer in zip(processed, ("brown fox", "dog"), strict=False):
        first, last = row["start_positions"], row["end_positions"]
        assert CONTEXT[row["offsets"][first][0] : row["offsets"][last][1]] == answer
    assert (processed[2]["start_positions"], processed[2]["end_positions"]) == (0, 0)
    outside = [tuple(span) == (-1, -1) for span in processed[0]["offsets"]]
    encoded = TOKENIZER("who", CONTEXT)
    assert outside == [sequence != 1 for sequence in encoded.sequence_ids()]


def test_an_answer_that_is_cut_off_is_no_answer_and_said_once(caplog):
    logging.getLogger("transformers").propagate = True
    processed = answered_questions(rows("dog", "the quick", ""), Reading(TOKENIZER, COLUMNS, max_length=14))
    assert processed["start_positions"][0] == 0 < processed["start_positions"][1]
    assert "1 of 3 answers lie beyond 14 tokens" in caplog.text


def test_rows_without_answers_have_no_places():
    columns = {"text": "question", "text_pair": "context"}
    assert "start_positions" not in answered_questions(rows("dog"), Reading(TOKENIZER, columns)).column_names


def test_the_best_span_lies_in_the_context_and_is_no_longer_than_allowed():
    generator = np.random.default_rng(0)
    size = MAX_ANSWER_TOKENS + 10
    starts, ends, is_context = generator.normal(size=size), generator.normal(size=size), generator.random(size) < 0.8
    best, expected = -np.inf, None
    for first in range(size):
        for last in range(first, min(first + MAX_ANSWER_TOKENS, size)):
            if is_context[first] and is_context[last] and starts[first] + ends[last] > best:
                best, expected = starts[first] + ends[last], (first, last)
    assert best_span(starts, ends, is_context) == expected


@pytest.mark.parametrize(("said", "exact", "f1"), [("brown fox", 1.0, 1.0), ("brown", 0.0, 2 / 3), ("dog", 0.0, 0.0)])
def test_scores_are_those_of_the_words(said, exact, f1):
    processed = answered_questions(rows("brown fox"), Reading(TOKENIZER, COLUMNS))
    place = answered_questions(rows(said), Reading(TOKENIZER, COLUMNS))[0]
    starts, ends = np.zeros((2, 1, len(processed[0]["input_ids"]) + 3))  # padded further
    starts[0, place["start_positions"]] = ends[0, place["end_positions"]] = 9
    scores = answer_scores(processed, Reading(TOKENIZER, COLUMNS))(EvalPrediction((starts, ends), None))
    assert scores == pytest.approx({"exact_match": exact, "f1": f1})


def test_articles_and_punctuation_do_not_count():
    answers = [{"text": ["The  brown fox!"], "answer_start": [4]}]
    data = Dataset.from_dict({"question": ["who"], "context": [CONTEXT], "answers": answers})
    processed = answered_questions(data, Reading(TOKENIZER, COLUMNS))
    place = answered_questions(rows("brown fox"), Reading(TOKENIZER, COLUMNS))[0]
    starts, ends = np.zeros((2, 1, len(processed[0]["input_ids"])))
    starts[0, place["start_positions"]] = ends[0, place["end_positions"]] = 9
    scores = answer_scores(processed, Reading(TOKENIZER, COLUMNS))(EvalPrediction((starts, ends), None))
    assert scores == {"exact_match": 1.0, "f1": 1.0}

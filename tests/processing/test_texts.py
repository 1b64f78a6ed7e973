import torch
from datasets import Dataset

from hf_distill.processing import Reading
from hf_distill.processing.texts import (
    classified_texts,
    padding_collator,
    tag_collator,
    tagged_words,
    text_pairs_to_write,
    writing_collator,
)
from tests.text_tokenizers import wordpiece_tokenizer


TOKENIZER = wordpiece_tokenizer()
CLASSES = {"single": "single_label_classification", "ids": {"no": 0, "yes": 1}}


def test_one_text():
    rows = Dataset.from_dict({"s": ["hello world", "the fox"], "y": ["yes", "no"], "kept": [1, 2]})
    reading = Reading(TOKENIZER, {"text": "s", "label": "y"}, CLASSES["single"], CLASSES["ids"], 2, max_length=4)
    processed = classified_texts(rows, reading)
    assert processed["labels"][:] == [1, 0]
    assert processed["input_ids"][:] == [
        TOKENIZER(text, truncation=True, max_length=4)["input_ids"] for text in rows["s"]
    ]
    assert max(map(len, processed["input_ids"])) == 4
    assert "y" not in processed.column_names
    assert {"s", "kept"} <= set(processed.column_names)  # a teacher may read the text for itself
    batch = padding_collator(reading)(processed.select_columns(["input_ids", "attention_mask", "labels"]).to_list())
    assert batch["labels"].tolist() == [1, 0]


def test_a_pair_of_texts():
    rows = Dataset.from_dict({"a": ["hello"], "b": ["world"]})
    processed = classified_texts(rows, Reading(TOKENIZER, {"text": "a", "text_pair": "b"}))
    assert processed[0]["input_ids"] == TOKENIZER("hello", "world")["input_ids"]
    assert "labels" not in processed.column_names


def test_the_first_token_of_a_word_has_its_tag():
    words = ["hello", "naïveté", "fox"]
    rows = Dataset.from_dict({"words": [words], "y": [["no", "yes", "no"]]})
    reading = Reading(TOKENIZER, {"text": "words", "label": "y"}, CLASSES["single"], CLASSES["ids"], 2)
    processed = tagged_words(rows, reading)
    ids, labels, position = processed[0]["input_ids"], processed[0]["labels"], 1
    assert len(ids) == len(labels) and labels[0] == labels[-1] == -100
    for word, tag in zip(words, (0, 1, 0), strict=True):
        pieces = len(TOKENIZER(word, add_special_tokens=False)["input_ids"])
        assert labels[position : position + pieces] == [tag] + [-100] * (pieces - 1)
        position += pieces
    assert position == len(ids) - 1 > len(words) + 1
    batch = tag_collator(reading)(processed.select_columns(["input_ids", "attention_mask", "labels"]).to_list())
    assert batch["labels"].shape == batch["input_ids"].shape


def test_a_text_to_write():
    rows = Dataset.from_dict({"long": ["hello world", "fox"], "short": ["the quick brown fox", "dog"]})
    reading = Reading(TOKENIZER, {"text": "long", "label": "short"}, max_target_length=3)
    processed = text_pairs_to_write(rows, reading)
    assert processed[0]["labels"] == TOKENIZER("the quick brown fox", truncation=True, max_length=3)["input_ids"]
    batch = writing_collator(reading)(processed.select_columns(["input_ids", "attention_mask", "labels"]).to_list())
    assert torch.is_tensor(batch["labels"])

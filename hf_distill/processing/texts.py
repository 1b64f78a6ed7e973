"""Rows of text, a pair of texts, words with tags, or a text and what is to be written for it, as token ids."""

from typing import Any

from datasets import Dataset
from transformers import DataCollatorForSeq2Seq, DataCollatorForTokenClassification, DataCollatorWithPadding

from hf_distill.processing.reading import Reading
from hf_distill.types import IGNORED_LABEL


def classified_texts(rows: Dataset, reading: Reading) -> Dataset:
    """One text or a pair of them, cut at the maximum length, and the class of each row."""

    def encode(batch: dict[str, list[Any]]) -> dict[str, Any]:
        texts = [batch[column] for column in reading.text_columns]
        encoded = dict(reading.processor(*texts, truncation=True, max_length=reading.max_length))
        if "label" in reading.columns:
            encoded["labels"] = [reading.label(value) for value in batch[reading.columns["label"]]]
        return encoded

    return rows.map(encode, batched=True, remove_columns=reading.replaced_columns(rows), desc="Tokenizing")


def tagged_words(rows: Dataset, reading: Reading) -> Dataset:
    """Words, of which each one's first token has its tag."""

    def encode(batch: dict[str, list[Any]]) -> dict[str, Any]:
        words = batch[reading.columns["text"]]
        encoded = reading.processor(words, is_split_into_words=True, truncation=True, max_length=reading.max_length)
        if "label" in reading.columns:
            tags = batch[reading.columns["label"]]
            labels = [_of_first_tokens(encoded.word_ids(index), tags[index], reading) for index in range(len(words))]
            return {**encoded, "labels": labels}
        return dict(encoded)

    return rows.map(encode, batched=True, remove_columns=reading.replaced_columns(rows), desc="Tokenizing")


def _of_first_tokens(words: list[int | None], tags: list[Any], reading: Reading) -> list[int]:
    starts = (word is not None and word != before for word, before in zip(words, [None, *words], strict=False))
    return [
        reading.label(tags[word]) if starts_word and word is not None else IGNORED_LABEL
        for word, starts_word in zip(words, starts, strict=True)
    ]


def text_pairs_to_write(rows: Dataset, reading: Reading) -> Dataset:
    """A text, and the tokens that are to be written for it."""

    def encode(batch: dict[str, list[Any]]) -> dict[str, Any]:
        tokenizer, written = reading.processor, batch[reading.columns["label"]]
        encoded = tokenizer(batch[reading.columns["text"]], truncation=True, max_length=reading.max_length)
        target = tokenizer(text_target=written, truncation=True, max_length=reading.max_target_length)
        return {**encoded, "labels": target["input_ids"]}

    return rows.map(encode, batched=True, remove_columns=reading.replaced_columns(rows), desc="Tokenizing")


def padding_collator(reading: Reading) -> Any:
    """Pads the tokens."""
    return DataCollatorWithPadding(reading.processor)


def tag_collator(reading: Reading) -> Any:
    """Pads the tokens, and their tags."""
    return DataCollatorForTokenClassification(reading.processor)


def writing_collator(reading: Reading) -> Any:
    """Pads the tokens, and those that are to be written."""
    return DataCollatorForSeq2Seq(reading.processor)

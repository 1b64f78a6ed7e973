"""Texts for language models: one after the other, cut into blocks of one length."""

from itertools import chain
from typing import Any

from datasets import Dataset
from transformers import DataCollatorForTokenClassification

from hf_distill.data_collator import DataCollatorForRowSeededMasking
from hf_distill.processing.reading import Reading


def text_blocks(rows: Dataset, reading: Reading) -> Dataset:
    """Blocks of `max_length` tokens. Each text ends with the tokenizer's end, if it has one.

    Texts are joined a thousand at a time. What is left over of them is dropped, unless they make no block at all.
    """
    tokenizer, size = reading.processor, reading.max_length
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]

    def encode(batch: dict[str, list[Any]]) -> dict[str, list[list[int]]]:
        texts = [text for text in batch[reading.columns["text"]] if text and text.strip()]
        ids = tokenizer(texts)["input_ids"] if texts else []
        tokens = list(chain.from_iterable(row if row[-1:] == end else row + end for row in ids))
        whole = len(tokens) // size * size or len(tokens)
        return {"input_ids": [tokens[start : start + size] for start in range(0, whole, size)]}

    return rows.map(encode, batched=True, remove_columns=rows.column_names, desc="Tokenizing")


def labelled_blocks(rows: Dataset, reading: Reading) -> Dataset:
    """Blocks that are their own labels, for causal language models."""
    blocks = text_blocks(rows, reading)
    return blocks.map(lambda batch: {"labels": batch["input_ids"]}, batched=True, desc="Labelling")


def masking_collator(reading: Reading) -> Any:
    """Masks tokens, the same ones of a block in each epoch of a resumed run."""
    return DataCollatorForRowSeededMasking(reading.processor)


def block_collator(reading: Reading) -> Any:
    """Pads the blocks that are shorter; their padding counts nowhere."""
    if reading.processor.pad_token is None:
        reading.processor.pad_token = reading.processor.eos_token
    return DataCollatorForTokenClassification(reading.processor)

"""A tagger teaches a smaller one: what kind of word is each word of a line of Python?

    python examples/distill_tagger.py

The lines are those of your own Python's standard library; the tags are what `tokenize` and `keyword` say of them. A
name is a function where it is called or defined, else a variable: the tagger has to look around. Pieces of a word that
are not its first carry the label −100 and are not compared.
"""

import argparse
import builtins
import inspect
import io
import keyword
import textwrap
import tokenize
from collections.abc import Iterator
from types import ModuleType

import numpy as np
from comparison import ExampleArguments, compare
from datasets import Dataset
from distill_language_model import byte_pair_tokenizer
from transformers import (
    DataCollatorForTokenClassification,
    EvalPrediction,
    HfArgumentParser,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from hf_distill import EncoderLMConfig, EncoderLMForTokenClassification


TAGS = ["keyword", "function", "builtin", "variable", "operator", "number", "string"]
MODULES: tuple[ModuleType, ...] = (argparse, inspect, textwrap, tokenize)


def tagged_lines() -> Dataset:
    """Lines of the standard library as words and tags, each line once."""
    rows = {tuple(words): tags for module in MODULES for words, tags in lines_of(inspect.getsource(module))}
    return Dataset.from_dict({"words": [list(words) for words in rows], "tags": list(rows.values())})


def lines_of(source: str) -> Iterator[tuple[list[str], list[int]]]:
    words: list[str] = []
    tags: list[int] = []
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.string.strip()]
    for token, following in zip(tokens, [*tokens[1:], tokens[-1]], strict=True):
        if token.type == tokenize.COMMENT or "\n" in token.string:
            continue
        words.append(token.string)
        tags.append(TAGS.index(tag_of(token, following)))
        if following.start[0] != token.end[0]:
            if 3 < len(words) < 40:
                yield words, tags
            words, tags = [], []


def tag_of(token: tokenize.TokenInfo, following: tokenize.TokenInfo) -> str:
    if token.type == tokenize.NAME:
        if keyword.iskeyword(token.string):
            return "keyword"
        if hasattr(builtins, token.string):
            return "builtin"
        return "function" if following.string == "(" else "variable"
    return {tokenize.OP: "operator", tokenize.NUMBER: "number"}.get(token.type, "string")


def encoded(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    def encode(row: dict[str, list[str]]) -> dict[str, list[int]]:
        tokens = tokenizer([" " + word for word in row["words"]], is_split_into_words=True)
        words = tokens.word_ids()
        firsts = [index == 0 or word != words[index - 1] for index, word in enumerate(words)]
        labels = [row["tags"][word] if first else -100 for word, first in zip(words, firsts, strict=True)]
        return {"input_ids": tokens["input_ids"], "labels": labels}

    return rows.map(encode, remove_columns=["words", "tags"])


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    counted = prediction.label_ids != -100
    return {"accuracy": float((np.argmax(prediction.predictions, axis=-1) == prediction.label_ids)[counted].mean())}


def main(job: ExampleArguments) -> None:
    rows = tagged_lines()
    tokenizer = byte_pair_tokenizer([" ".join(words) for words in rows["words"]], 1024)

    def tagger(size: int, layers: int) -> PreTrainedModel:
        return EncoderLMForTokenClassification(
            EncoderLMConfig(
                vocab_size=len(tokenizer),
                hidden_size=size,
                num_hidden_layers=layers,
                num_attention_heads=size // 16,
                intermediate_size=2 * size,
                pad_token_id=tokenizer.pad_token_id,
                id2label=dict(enumerate(TAGS)),
                label2id={tag: index for index, tag in enumerate(TAGS)},
            )
        )

    splits = encoded(rows, tokenizer).train_test_split(test_size=0.2, seed=0)
    compare(
        job,
        lambda: tagger(96, 3),
        lambda: tagger(16, 1),
        splits["train"],
        splits["test"],
        "eval_accuracy",
        processing_class=tokenizer,
        data_collator=DataCollatorForTokenClassification(tokenizer),
        compute_metrics=accuracy,
    )


if __name__ == "__main__":
    main(*HfArgumentParser(ExampleArguments).parse_args_into_dataclasses())

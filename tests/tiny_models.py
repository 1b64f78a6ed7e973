"""Tiny real models and rows that several tests share."""

from typing import Any

import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    set_seed,
)


VOCAB_SIZE = 40
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SIZES = {"vocab_size": VOCAB_SIZE, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}


def bert(model_class: Any = BertForSequenceClassification, layers: int = 1, **config: Any) -> PreTrainedModel:
    """A BERT without dropout, its weights large enough that outputs of two seeds differ by much."""
    set_seed(layers)
    return model_class(
        BertConfig(**SIZES, num_hidden_layers=layers, initializer_range=0.3, **{**NO_DROPOUT, **config})
    )


def llama(layers: int = 1, **config: Any) -> PreTrainedModel:
    set_seed(layers)
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_hidden_layers=layers, initializer_range=0.3, **config))


def model_for(head: str, layers: int) -> PreTrainedModel:
    """A model with a head: single_label, multi_label, regression, tokens, answers, masked or causal."""
    return {
        "single_label": lambda: bert(layers=layers, num_labels=3),
        "multi_label": lambda: bert(layers=layers, num_labels=3, problem_type="multi_label_classification"),
        "regression": lambda: bert(layers=layers, num_labels=1),
        "tokens": lambda: bert(BertForTokenClassification, layers=layers, num_labels=3),
        "answers": lambda: bert(BertForQuestionAnswering, layers=layers),
        "masked": lambda: bert(BertForMaskedLM, layers=layers),
        "causal": lambda: llama(layers=layers),
    }[head]()


HEADS = ("single_label", "multi_label", "regression", "tokens", "answers", "masked", "causal")


def rows_for(head: str, lengths: tuple[int, ...] = (3, 9, 4, 7, 5, 8, 6, 4)) -> list[dict[str, Any]]:
    """Rows of unequal length. Masked rows 2 and 3 hold no label, so that a micro-batch of 2 counts nothing."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for index, length in enumerate(lengths):
        tokens = torch.randint(3, VOCAB_SIZE, (length,), generator=generator)
        row: dict[str, Any] = {"input_ids": tokens.tolist()}
        if head == "single_label":
            row["labels"] = index % 3
        elif head == "multi_label":
            row["labels"] = [float(index % 2), float(index % 3 == 0), 1.0]
        elif head == "regression":
            row["labels"] = index / 4
        elif head == "tokens":
            row["labels"] = [-100 if position % 3 == 2 else int(token) % 3 for position, token in enumerate(tokens)]
        elif head == "answers":
            row["start_positions"], row["end_positions"] = index % length, length - 1
        elif head == "masked":
            kept = index not in (2, 3)
            row["labels"] = [int(token) if kept and position % 2 else -100 for position, token in enumerate(tokens)]
        elif head == "causal":
            row["labels"] = tokens.tolist()
        rows.append(row)
    return rows


def word_tokenizer(*words: str) -> PreTrainedTokenizerFast:
    """A tokenizer whose ids count the words given; the first one stands for all others."""
    model = models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[0])
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model))


class PaddingCollator:
    """Pads token-level entries on the right, to the longest row and `extra` more."""

    def __init__(self, extra: int = 0) -> None:
        self.extra = extra

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        width = max(len(row["input_ids"]) for row in rows) + self.extra
        fill = {"input_ids": 0, "labels": -100}
        batch = {
            name: torch.tensor([_padded(row, name, width, fill.get(name, 0)) for row in rows]) for name in rows[0]
        }
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        batch["attention_mask"] = (torch.arange(width) < lengths[:, None]).long()
        return batch


def _padded(row: dict[str, Any], name: str, width: int, fill: int) -> Any:
    value = row[name]
    is_per_token = isinstance(value, list) and len(value) == len(row["input_ids"]) and not isinstance(value[0], float)
    return value + [fill] * (width - len(value)) if is_per_token else value

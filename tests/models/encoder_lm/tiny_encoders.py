"""Tiny encoder language models whose every weight matters, and rows for them."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hf_distill.models.encoder_lm import (
    EncoderLMConfig,
    EncoderLMForCausalLM,
    EncoderLMForMaskedLM,
    EncoderLMForQuestionAnswering,
    EncoderLMForSequenceClassification,
    EncoderLMForTokenClassification,
    EncoderLMModel,
)


VOCAB_SIZE = 50
HIDDEN_SIZE = 16
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
HEADS = (
    EncoderLMForMaskedLM,
    EncoderLMForCausalLM,
    EncoderLMForSequenceClassification,
    EncoderLMForTokenClassification,
    EncoderLMForQuestionAnswering,
)
LANGUAGE_MODELS = (EncoderLMForMaskedLM, EncoderLMForCausalLM)
POSITIONS = ("sinusoidal", "learned", "rotary")


def tiny_config(**options: Any) -> EncoderLMConfig:
    sizes = {"vocab_size": VOCAB_SIZE, "hidden_size": HIDDEN_SIZE, "num_hidden_layers": 2, "num_attention_heads": 4}
    return EncoderLMConfig(
        **{**sizes, "intermediate_size": 24, "max_position_embeddings": 32, "num_labels": 3, **options}
    )


def tiny(model_class: Any = EncoderLMModel, seed: int = 0, **options: Any) -> PreTrainedModel:
    """A model in evaluation mode, all of whose parameters, biases and norms too, are random and far from zero."""
    model = model_class(tiny_config(**options))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.3 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
    return model.eval()


def random_tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(3, VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(seed))


def padded(lengths: Sequence[int], side: str = "right", seed: int = 0) -> dict[str, Tensor]:
    """Rows of these lengths as a batch. Padding holds tokens like any other, so that only the mask tells it apart."""
    tokens = random_tokens(len(lengths), max(lengths), seed=seed)
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    if side == "left":
        real = real.flip(1)
    return {
        "input_ids": tokens,
        "attention_mask": real.long(),
        "position_ids": (real.cumsum(1) - 1).clamp(min=0),
    }


def output(model: PreTrainedModel, **inputs: Any) -> Tensor:
    """The scores of a head, or the hidden states of the encoder, as one tensor."""
    outputs = model(**inputs)
    if "start_logits" in outputs:
        return torch.stack((outputs.start_logits, outputs.end_logits), dim=-1)
    return outputs.logits if "logits" in outputs else outputs.last_hidden_state


def labels_for(model: PreTrainedModel, tokens: Tensor) -> dict[str, Tensor]:
    """Labels of the kind that the model's head takes, the first of each row left out where that is possible."""
    rows = torch.arange(len(tokens))
    if isinstance(model, EncoderLMForQuestionAnswering):
        return {"start_positions": rows % 3, "end_positions": 3 + rows % 2}
    if isinstance(model, EncoderLMForSequenceClassification):
        return {"labels": rows % 3}
    labels = tokens.clone() if isinstance(model, LANGUAGE_MODELS) else tokens % 3
    labels[:, 0] = -100
    return {"labels": labels}


def sinusoids_in_loops(position: int, size: int) -> list[float]:
    """Vaswani et al. (2017), section 3.5, one number at a time, in double precision."""
    vector = []
    for index in range(size // 2):
        angle = position / 10000 ** (2 * index / size)
        vector += [math.sin(angle), math.cos(angle)]
    return vector

"""Heads that write a sequence after reading another one."""

import sys
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, AutoModelForSpeechSeq2Seq
from transformers.trainer_utils import unwrap_peft_model

from hf_distill.errors import MissingInputError
from hf_distill.heads.base import Head
from hf_distill.types import IGNORED_LABEL, Batch, Signals


READ_FROM_THE_LAST = ("mbart", "plbart")
"""Model types whose decoder starts with the last label of a row, and whose own code fails on a row without any. Such a
row is given one, which is compared nowhere."""


class Seq2SeqHead(Head):
    """Encoder–decoders: logits `(B, T, V)`, where position t predicts label t, compared where the labels count.

    The decoder reads the labels, shifted by one. A model that is called without labels cannot make that itself, so
    each model, student or teacher, shifts them by its own convention. Where the batch brings `decoder_input_ids`, both
    read those; without labels all their real positions are compared.

    Args:
        auto_class: the Auto class of encoder–decoders that read texts, or pictures.
    """

    is_language_model = True

    def __init__(self, auto_class: Any = AutoModelForSeq2SeqLM) -> None:
        self.auto_class = auto_class

    def logits(self, outputs: Any, batch: Batch) -> Tensor:
        logits: Tensor = outputs["logits"]
        return logits

    def mask(self, batch: Batch) -> Tensor:
        labels: Tensor | None = batch.get("labels")
        if labels is not None:
            return labels != IGNORED_LABEL
        inputs: Tensor | None = batch.get("decoder_input_ids")
        if inputs is None:
            raise MissingInputError(
                "a decoder reads what it has written so far, and the batch has neither `labels` nor "
                f"`decoder_input_ids`: it has only {sorted(batch)}. Add a column of labels, which may come from the "
                "teacher's `generate`."
            )
        real: Tensor | None = batch.get("decoder_attention_mask")
        return torch.ones_like(inputs, dtype=torch.bool) if real is None else real.bool()

    def signals(self, outputs: Any, batch: Batch) -> Signals:
        return replace(super().signals(outputs, batch), encoder_states=outputs.get("encoder_last_hidden_state"))

    def decoder_tokens(self, batch: Batch) -> Tensor | None:
        return self.mask(batch)

    def derived_inputs(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        labels: Tensor | None = batch.get("labels")
        if labels is None or batch.get("decoder_input_ids") is not None:
            return {}
        return {"decoder_input_ids": _shifted_right(unwrap_peft_model(model), labels)}


class SpeechSeq2SeqHead(Seq2SeqHead):
    """Encoder–decoders that listen, and write as any other."""

    def __init__(self) -> None:
        super().__init__(AutoModelForSpeechSeq2Seq)


def _shifted_right(model: Any, labels: Tensor) -> Tensor:
    """`(B, T)`: what the model's decoder would read if it were called with these labels."""
    if getattr(getattr(model, "config", None), "model_type", "") in READ_FROM_THE_LAST:
        is_empty = (labels == IGNORED_LABEL).all(dim=1, keepdim=True)
        is_first = torch.arange(labels.shape[1], device=labels.device) == 0
        labels = labels.masked_fill(is_empty & is_first, model.config.eos_token_id)
    shift = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if shift is not None:
        shifted: Tensor = shift(labels)
        return shifted
    for parent in type(model).__mro__:
        shift = getattr(sys.modules[parent.__module__], "shift_tokens_right", None)
        if shift is not None:
            shifted = shift(labels, model.config.pad_token_id, model.config.decoder_start_token_id)
            return shifted
    raise MissingInputError(
        f"{type(model).__name__} does not say how its decoder's inputs are made from labels. Add `decoder_input_ids` "
        "to the batch."
    )

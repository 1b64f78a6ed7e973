"""Heads that choose a token of the vocabulary at every position."""

from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from hf_distill.heads.base import IGNORED_LABEL, Head, real_tokens
from hf_distill.types import Batch


class MaskedLMHead(Head):
    """Masked language models: logits `(B, L, V)`, compared at the masked tokens.

    Without labels, all real tokens are compared.
    """

    auto_class = AutoModelForMaskedLM
    is_language_model = True

    def logits(self, outputs: Any, batch: Batch) -> Tensor:
        return outputs["logits"]

    def mask(self, batch: Batch) -> Tensor:
        labels = batch.get("labels")
        return real_tokens(batch) if labels is None else labels != IGNORED_LABEL


class CausalLMHead(Head):
    """Causal language models: logits `(B, L, V)`, where position t predicts token t + 1.

    So position t counts if the label at t + 1 does, and the last position never does. Without labels, it counts if
    both tokens are real, which are the positions that labels equal to the inputs would give. `shift_labels`, which
    some collators make, are already aligned with the logits.
    """

    auto_class = AutoModelForCausalLM
    is_language_model = True

    def logits(self, outputs: Any, batch: Batch) -> Tensor:
        return outputs["logits"]

    def mask(self, batch: Batch) -> Tensor:
        if batch.get("shift_labels") is not None:
            return batch["shift_labels"] != IGNORED_LABEL
        if (labels := batch.get("labels")) is not None:
            predicts = labels[:, 1:] != IGNORED_LABEL
        else:
            real = real_tokens(batch)
            predicts = real[:, 1:] & real[:, :-1]
        return torch.nn.functional.pad(predicts, (0, 1), value=False)

    def num_labels(self, batch: Batch) -> Tensor:
        return self.mask(batch).sum()

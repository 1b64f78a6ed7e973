"""Heads that choose a token of the vocabulary at every position."""

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from hf_distill.errors import ConfigurationError
from hf_distill.heads.base import Head, real_tokens
from hf_distill.types import IGNORED_LABEL, TEACHER_POSITIONS, Batch, Positions, Unit


class MaskedLMHead(Head):
    """Masked language models: logits `(B, L, V)`, compared at the masked tokens.

    Without labels, all real tokens are compared.

    Args:
        compare: "masked", or "real" for all real tokens, also where there are labels. The labels' loss stays as it is.

    Raises:
        ConfigurationError: if `compare` is neither.
    """

    auto_class = AutoModelForMaskedLM
    is_language_model = True
    positions_are_tokens = True

    def __init__(self, compare: Literal["masked", "real"] = "masked") -> None:
        if compare not in ("masked", "real"):
            raise ConfigurationError(f"`compare` must be 'masked' or 'real', got {compare!r}.")
        self.compare = compare

    def logits(self, outputs: Any, batch: Batch) -> Tensor:
        logits: Tensor = outputs["logits"]
        return logits

    def mask(self, batch: Batch) -> Tensor:
        labels: Tensor | None = batch.get("labels")
        return real_tokens(batch) if labels is None or self.compare == "real" else labels != IGNORED_LABEL


class CausalLMHead(Head):
    """Causal language models: logits `(B, L, V)`, where position t predicts token t + 1.

    So position t counts if it is a real token and the label at t + 1 counts, and the last position never does. Without
    labels, it counts if both tokens are real, which are the positions that labels equal to the inputs would give.
    `shift_labels`, which some collators make, are already aligned with the logits.

    Transformers also counts the first token of a row that is padded on the left, which it predicts from padding, so
    that the loss changes with the padding. That label is left out here.

    Args:
        shifts_labels: whether the model's own loss compares position t with label t + 1. That of the decoders of BART,
            Whisper, ProphetNet and XLNet compares it with label t: whoever uses those has shifted the labels already.
            Without labels, all real tokens are compared then.
        auto_class: the Auto class of language models, or of those that also look at pictures.
    """

    is_language_model = True
    positions_are_tokens = True

    def __init__(self, shifts_labels: bool = True, auto_class: Any = AutoModelForCausalLM) -> None:
        self.shifts_labels = shifts_labels
        self.auto_class = auto_class

    def logits(self, outputs: Any, batch: Batch) -> Tensor:
        logits: Tensor = outputs["logits"]
        return logits

    def mask(self, batch: Batch) -> Tensor:
        shift_labels: Tensor | None = batch.get("shift_labels")
        if shift_labels is not None:
            return shift_labels != IGNORED_LABEL
        real = real_tokens(batch)
        labels: Tensor | None = batch.get("labels")
        predicted = real if labels is None else labels != IGNORED_LABEL
        return _next(predicted, False) & real if self.shifts_labels else predicted

    def targets(self, batch: Batch) -> Tensor | None:
        shift_labels: Tensor | None = batch.get("shift_labels")
        if shift_labels is not None or not self.has_labels(batch):
            return shift_labels
        return _next(batch["labels"], IGNORED_LABEL) if self.shifts_labels else batch["labels"]

    def labels(self, batch: Batch) -> dict[str, Any]:
        labels = super().labels(batch)
        if labels and self.shifts_labels and batch.get("shift_labels") is None:
            is_predicted = torch.nn.functional.pad(real_tokens(batch)[:, :-1], (1, 0), value=True)
            labels["labels"] = labels["labels"].masked_fill(~is_predicted, IGNORED_LABEL)
        return labels

    def num_labels(self, batch: Batch) -> Tensor:
        return self.mask(batch).sum()

    def positions(self, batch: Batch) -> Positions:
        """Where the batch counts; for a teacher with another tokenizer, where that has read the same text too."""
        where = super().positions(batch)
        of_teacher: Tensor | None = batch.get(TEACHER_POSITIONS)
        if of_teacher is None:
            return where
        mask = where.mask & (of_teacher >= 0)
        return replace(where, mask=mask, counts={**where.counts, Unit.POSITION: mask.sum()})


def _next(values: Tensor, last: int) -> Tensor:
    """`(B, L)`: what stands at t + 1, with `last` after the end."""
    return torch.nn.functional.pad(values[:, 1:], (0, 1), value=last)

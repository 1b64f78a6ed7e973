"""Heads that choose a class for a sequence or for each of its tokens."""

from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from hf_distill.heads.base import IGNORED_LABEL, Head, real_tokens
from hf_distill.types import Batch


class SingleLabelHead(Head):
    """One class per sequence: logits `(B, C)`, every row compared, labelled or not."""

    auto_class = AutoModelForSequenceClassification

    def logits(self, outputs: Any, batch: Batch) -> Tensor:
        logits: Tensor = outputs["logits"]
        return logits

    def mask(self, batch: Batch) -> Tensor:
        tensor = next(value for value in batch.values() if isinstance(value, Tensor) and value.ndim)
        return torch.ones(len(tensor), dtype=torch.bool, device=tensor.device)


class MultiLabelHead(SingleLabelHead):
    """Any number of classes per sequence: each class is a yes or no of its own.

    The logit z of a class is the pair (z, 0), whose softmax is (sigmoid(z), 1 − sigmoid(z)). So logits are
    `(B, C, 2)` and a divergence of distributions is one of Bernoulli distributions.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def logits(self, outputs: Any, batch: Batch) -> Tensor:
        logits = outputs["logits"]
        return torch.stack((logits, torch.zeros_like(logits)), dim=-1)

    def mask(self, batch: Batch) -> Tensor:
        return super().mask(batch)[:, None].expand(-1, self.num_classes)

    def num_labels(self, batch: Batch) -> Tensor:
        return _number(batch["labels"].numel(), batch)


class RegressionHead(SingleLabelHead):
    """Numbers instead of classes: outputs `(B, N)`, compared by their squared difference."""

    is_distribution = False

    def num_labels(self, batch: Batch) -> Tensor:
        return _number(len(batch["labels"]), batch)


class TokenClassificationHead(Head):
    """One class per token: logits `(B, L, C)`, compared at the labelled tokens.

    Without labels, all real tokens are compared.
    """

    auto_class = AutoModelForTokenClassification

    def logits(self, outputs: Any, batch: Batch) -> Tensor:
        logits: Tensor = outputs["logits"]
        return logits

    def mask(self, batch: Batch) -> Tensor:
        labels: Tensor | None = batch.get("labels")
        return real_tokens(batch) if labels is None else labels != IGNORED_LABEL


def _number(value: int, batch: Batch) -> Tensor:
    return torch.full((), value, device=batch["labels"].device)

"""Heads that choose where an answer starts and ends."""

from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForQuestionAnswering

from hf_distill.heads.base import Head, at_least_float32, real_tokens
from hf_distill.types import IGNORED_LABEL, Batch


class QuestionAnsweringHead(Head):
    """Extractive question answering: logits `(B, 2, L)`, start and end, each a choice among the real tokens.

    Transformers' own loss lets padding into its softmax, so that it changes when a batch is padded further. The
    labels' loss is therefore computed here, from logits whose padding is −∞: the mean over starts and ends that lie
    inside the (padded) sequence. Answers outside of it are left out, as Transformers does.
    """

    auto_class = AutoModelForQuestionAnswering
    label_names = ("start_positions", "end_positions")
    positions_are_tokens = True
    class_axis = None

    def logits(self, outputs: Any, batch: Batch) -> Tensor:
        logits = torch.stack((outputs["start_logits"], outputs["end_logits"]), dim=1)
        return logits.masked_fill(~real_tokens(batch)[:, None], -torch.inf)

    def mask(self, batch: Batch) -> Tensor:
        real = real_tokens(batch)
        return torch.ones((len(real), 2), dtype=torch.bool, device=real.device)

    def num_labels(self, batch: Batch) -> Tensor:
        return (self._answers(batch) >= 0).sum()

    def targets(self, batch: Batch) -> Tensor | None:
        if not self.has_labels(batch):
            return None
        answers = self._answers(batch)
        return answers.masked_fill(answers < 0, IGNORED_LABEL)

    def label_loss(self, outputs: Any, batch: Batch) -> Tensor:
        logits, answers = self.logits(outputs, batch), self._answers(batch)
        return torch.nn.functional.cross_entropy(
            at_least_float32(logits).flatten(0, 1), answers.flatten(), ignore_index=-1, reduction="sum"
        )

    def _answers(self, batch: Batch) -> Tensor:
        """`(B, 2)`: the indices of start and end, −1 where they do not point at a real token."""
        answers = torch.stack([batch[name].flatten() for name in self.label_names], dim=1)
        real = real_tokens(batch)
        inside = (answers >= 0) & (answers < real.shape[1])
        answers = torch.where(inside, answers, 0)
        return torch.where(inside & real.gather(1, answers), answers, -1)

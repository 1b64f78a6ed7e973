"""Heads that write down a sound, frame by frame."""

from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoModelForCTC

from hf_distill.errors import ConfigurationError
from hf_distill.heads.base import Head, at_least_float32
from hf_distill.heads.frames import FrameCount, real_frames
from hf_distill.types import Batch


class CTCHead(Head):
    """Connectionist temporal classification: logits `(B, frames, V)`, compared at the frames of the sound.

    The model's own loss is one number a row. It is counted in rows, a row without any label included: that one is to
    be blank throughout.

    Args:
        frame_count: from the lengths of inputs to those of outputs; `heads.frames.frame_count` takes it out of a
            model.
        reduction: `ctc_loss_reduction` of the configuration: "sum" over the rows, or "mean" over the rows of the loss
            divided by the number of labels.

    Raises:
        ConfigurationError: if `reduction` is neither.
    """

    auto_class = AutoModelForCTC

    def __init__(self, frame_count: FrameCount, reduction: Literal["sum", "mean"] = "sum") -> None:
        if reduction not in ("sum", "mean"):
            raise ConfigurationError(
                f"`ctc_loss_reduction` must be 'sum' or 'mean', got {reduction!r}, of which no sum over rows can be "
                "made. Change it in the student's configuration."
            )
        self.frame_count = frame_count
        self.reduction = reduction

    def logits(self, outputs: Any, batch: Batch) -> Tensor:
        logits: Tensor = outputs["logits"]
        return logits

    def mask(self, batch: Batch) -> Tensor:
        return real_frames(batch, self.frame_count)

    def tokens(self, batch: Batch) -> Tensor:
        return self.mask(batch)

    def targets(self, batch: Batch) -> None:
        return None

    def num_labels(self, batch: Batch) -> Tensor:
        return torch.full((), len(batch["labels"]), device=batch["labels"].device)

    def label_loss(self, outputs: Any, batch: Batch) -> Tensor:
        return at_least_float32(outputs["loss"]) if self.reduction == "sum" else super().label_loss(outputs, batch)

"""Heads that choose a class for each pixel."""

from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSemanticSegmentation

from hf_distill.heads.base import Head
from hf_distill.types import IGNORED_LABEL, Batch


class SemanticSegmentationHead(Head):
    """One class per pixel: logits `(B, H, W, C)`, compared at the labelled pixels.

    The models' own logits are smaller than the image. As in their own loss, they are brought to the labels'
    resolution bilinearly, so that student and teacher may differ in theirs. Without labels, all pixels are compared at
    the image's resolution. Auxiliary heads (UperNet, BEiT) are means over the same pixels, and part of the own loss.

    Batch normalisation, which most of these models have in their decoder, makes gradients depend on how a batch is
    split.

    Args:
        ignored_label: the label of pixels that do not count.
    """

    auto_class = AutoModelForSemanticSegmentation

    def __init__(self, ignored_label: int = 255) -> None:
        self.ignored_label = ignored_label

    def logits(self, outputs: Any, batch: Batch) -> Tensor:
        labels: Tensor | None = batch.get("labels")
        size = (batch["pixel_values"] if labels is None else labels).shape[-2:]
        logits = torch.nn.functional.interpolate(outputs["logits"], size=size, mode="bilinear", align_corners=False)
        return logits.movedim(1, -1)

    def mask(self, batch: Batch) -> Tensor:
        labels: Tensor | None = batch.get("labels")
        if labels is not None:
            return labels != self.ignored_label
        pixels: Tensor = batch["pixel_values"]
        return torch.ones_like(pixels[:, 0], dtype=torch.bool)

    def targets(self, batch: Batch) -> Tensor | None:
        labels: Tensor | None = batch.get("labels")
        return None if labels is None else labels.masked_fill(labels == self.ignored_label, IGNORED_LABEL)

    def num_labels(self, batch: Batch) -> Tensor:
        return self.mask(batch).sum()

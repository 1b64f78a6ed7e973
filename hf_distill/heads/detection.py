"""Heads that find objects in an image: a set of boxes, each with a class."""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoModelForObjectDetection

from hf_distill.heads.base import Head, one_per_row
from hf_distill.types import Batch, Signals


NO_OBJECT_MODELS = ("detr", "table-transformer", "yolos")
"""Model types that choose, for each box, one of the classes or "no object"."""
FOCAL_MODELS = (
    *("conditional_detr", "d_fine", "dab-detr", "deformable_detr", "deimv2", "lw_detr", "rf_detr", "rt_detr"),
    "rt_detr_v2",
)
"""Model types that say yes or no to each class, for each box, and learn it by a focal loss."""


class ObjectDetectionHead(Head):
    """One of C classes or "no object" for each of Q boxes: logits `(B, Q, C + 1)` and boxes `(B, Q, 4)`.

    What a detector says about an image is one set, in no order of its own. So an image is one position, and a term
    sums over the set. Which box of the student is compared with which one of the teacher is found by
    `heads.query_matching`.

    The own loss, with those of the intermediate layers, is already divided by the number of objects in its micro-batch
    (over all processes). What it would be for another split cannot be told from it, so a micro-batch counts as one
    label, and the gradient of the labels depends on how a batch is split.

    Labels are a list with a dictionary for each image: `class_labels` `(N,)` and `boxes` `(N, 4)`.
    """

    auto_class = AutoModelForObjectDetection
    class_axis: ClassVar[int] = -1

    def logits(self, outputs: Any, batch: Batch) -> Tensor:
        return self._queries(outputs, "logits")

    def mask(self, batch: Batch) -> Tensor:
        return one_per_row(batch)

    def targets(self, batch: Batch) -> None:
        return None

    def num_labels(self, batch: Batch) -> Tensor:
        return torch.ones((), dtype=torch.long, device=self.mask(batch).device)

    def signals(self, outputs: Any, batch: Batch) -> Signals:
        return replace(super().signals(outputs, batch), boxes=self._queries(outputs, "pred_boxes"))

    def _queries(self, outputs: Any, name: str) -> Tensor:
        """`(B, Q, …)`: what the queries say that the model has in evaluation too."""
        values: Tensor = outputs[name]
        return values


class FocalObjectDetectionHead(ObjectDetectionHead):
    """A yes or no to each of C classes for each of Q boxes: logits `(B, Q, C, 2)` and boxes `(B, Q, 4)`.

    The logit z of a class is the pair (z, 0), as in [`MultiLabelHead`].

    Some models have more queries in training: RT-DETR, D-FINE and DEIMv2 begin with queries that were made from the
    labels, and LW-DETR and RF-DETR have several groups, of which only the first is used later. Those are not compared.

    Args:
        num_queries: Q, where a model trains several groups of as many queries.
        num_groups: how many.
    """

    class_axis = -2

    def __init__(self, num_queries: int = 0, num_groups: int = 1) -> None:
        self.num_queries = num_queries
        self.num_groups = num_groups

    def logits(self, outputs: Any, batch: Batch) -> Tensor:
        logits = super().logits(outputs, batch)
        return torch.stack((logits, torch.zeros_like(logits)), dim=-1)

    def _queries(self, outputs: Any, name: str) -> Tensor:
        values = super()._queries(outputs, name)
        denoising = outputs.get("denoising_meta_values")
        if denoising is not None:
            return values[:, denoising["dn_num_split"][0] :]
        is_grouped = self.num_groups > 1 and values.shape[1] == self.num_groups * self.num_queries
        return values[:, : self.num_queries] if is_grouped else values

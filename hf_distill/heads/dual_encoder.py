"""Heads that say which text belongs to which image, or sound."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from transformers import AutoModel

from hf_distill.errors import ConfigurationError, MissingInputError
from hf_distill.heads.base import Head, one_per_row
from hf_distill.types import Batch


class DualEncoderHead(Head):
    """Similarities of every image (or sound) of a micro-batch to every text of it.

    Both ways are compared: for each image the distribution over the texts, and for each text that over the images, so
    that logits are `(2, B, B)`. Where the model's own loss is one yes or no a pair, they are `(B, B, 2)`: the logit z
    of a pair is (z, 0), whose softmax is (sigmoid(z), 1 − sigmoid(z)). The logits hold the model's own scale and bias.

    The model's own loss is that of `return_loss=True`, and needs no labels. It is one number a micro-batch, and what
    is compared are the pairs **within a micro-batch**. So four accumulated batches of 2 are not one batch of 8, which
    has more texts to choose between, and neither are two processes of 4: no head of this kind can have that property.

    Args:
        activation: "softmax" over the texts and over the images (CLIP), or "sigmoid" for each pair (SigLIP).

    Raises:
        ConfigurationError: if `activation` is neither.
    """

    auto_class = AutoModel
    label_names = ("return_loss",)
    class_axis = None
    compares_rows: ClassVar[bool] = True

    def __init__(self, activation: Literal["softmax", "sigmoid"] = "softmax") -> None:
        if activation not in ("softmax", "sigmoid"):
            raise ConfigurationError(f"`activation` must be 'softmax' or 'sigmoid', got {activation!r}.")
        self.activation = activation

    @property
    def reading(self) -> str:
        return f"activation={self.activation!r}"

    def logits(self, outputs: Any, batch: Batch) -> Tensor:
        per_text: Tensor = outputs["logits_per_text"]
        if per_text.shape[0] != per_text.shape[1]:
            raise MissingInputError(
                f"a batch has {per_text.shape[0]} texts and {per_text.shape[1]} images or sounds, which are no "
                "pairs. Give each row of the data set one text and one image, or one sound."
            )
        if self.activation == "sigmoid":
            return torch.stack((per_text.t(), torch.zeros_like(per_text.t())), dim=-1)
        other = next(name for name in outputs if name.startswith("logits_per_") and name != "logits_per_text")
        return torch.stack((outputs[other], per_text))

    def mask(self, batch: Batch) -> Tensor:
        rows = one_per_row(batch)
        return rows.expand(len(rows) if self.activation == "sigmoid" else 2, -1)

    def labels(self, batch: Batch) -> dict[str, Any]:
        return {"return_loss": True}

    def has_labels(self, batch: Batch) -> bool:
        return True

    def targets(self, batch: Batch) -> None:
        return None

    def num_labels(self, batch: Batch) -> Tensor:
        return one_per_row(batch).any().long()

"""Heads that say everything in one vector."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from transformers import AutoModel

from hf_distill.errors import ConfigurationError, UnsupportedModelError
from hf_distill.heads.base import Head, at_least_float32, one_per_row
from hf_distill.heads.frames import FrameCount, real_frames
from hf_distill.types import Batch


Pooling = Literal["mean", "cls", "last", "pooler"]


class EmbeddingHead(Head):
    """One vector per text, image or sound: `(B, H)`, compared by its squared difference.

        1 / H · Σ_h (student_h − teacher_h)²

    It is pooled out of the last hidden states of a model without any other head. Such a model has no loss of its own,
    so the labels' loss is left out (`alpha=0`).

    Args:
        pooling: "mean" of the real tokens, frames, patches or places; "cls", the first one; "last", the last real one;
            or "pooler", what the model calls `pooler_output`.
        normalize: whether vectors are divided by their Euclidean length.
        frame_count: for models of sounds, as in `CTCHead`.

    Raises:
        ConfigurationError: if `pooling` is none of these.
    """

    auto_class = AutoModel
    class_axis = None
    is_distribution = False
    has_own_loss: ClassVar[bool] = False

    def __init__(
        self, pooling: Pooling = "mean", normalize: bool = False, frame_count: FrameCount | None = None
    ) -> None:
        if pooling not in ("mean", "cls", "last", "pooler"):
            raise ConfigurationError(f"`pooling` must be 'mean', 'cls', 'last' or 'pooler', got {pooling!r}.")
        self.pooling = pooling
        self.normalize = normalize
        self.frame_count = frame_count

    @property
    def reading(self) -> str:
        return f"pooling={self.pooling!r}{', normalize=True' if self.normalize else ''}"

    def logits(self, outputs: Any, batch: Batch) -> Tensor:
        return self.of_vectors(self._pooled(outputs, batch))

    def of_vectors(self, vectors: Tensor) -> Tensor:
        """What is compared of vectors that are pooled already, `(B, H)`."""
        return torch.nn.functional.normalize(vectors, dim=-1) if self.normalize else vectors

    def mask(self, batch: Batch) -> Tensor:
        return one_per_row(batch)

    def has_labels(self, batch: Batch) -> bool:
        return False

    def reads_weight(self, name: str) -> bool:
        return self.pooling == "pooler" or "pooler" not in name.split(".")

    def _pooled(self, outputs: Any, batch: Batch) -> Tensor:
        name = "pooler_output" if self.pooling == "pooler" else "last_hidden_state"
        states: Tensor | None = outputs.get(name)
        if states is None:
            others = "'pooler'" if "pooler_output" in outputs else "…"
            raise UnsupportedModelError(
                f"the model gives no {name!r}, only {list(outputs)}, so pooling={self.pooling!r} has nothing to read. "
                f"Pass `head=EmbeddingHead(pooling={others})`, or a `Head` of your own that describes its outputs."
            )
        states = at_least_float32(states)
        if self.pooling == "pooler":
            return states.flatten(1)
        if states.ndim == 4:  # (B, H, height, width), of a convolutional network
            states = states.flatten(2).transpose(1, 2)
        if self.pooling == "cls":
            return states[:, 0]
        real = self._real(states, batch)
        if self.pooling == "last":
            places = torch.arange(states.shape[1], device=states.device)
            last = torch.where(real, places, 0).amax(1)
            return states[torch.arange(len(states), device=states.device), last]
        return states.masked_fill(~real[..., None], 0.0).sum(1) / real.sum(1, keepdim=True).clamp(min=1)

    def _real(self, states: Tensor, batch: Batch) -> Tensor:
        """Bool `(B, N)`: which of the N states are of the row, and not of its padding."""
        mask: Tensor | None = batch.get("attention_mask")
        if mask is None or mask.ndim != 2:
            return torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        if mask.shape[1] != states.shape[1] and self.frame_count is not None:
            mask = real_frames(batch, self.frame_count)
        if mask.shape[1] != states.shape[1]:
            raise UnsupportedModelError(
                f"a model makes {states.shape[1]} hidden states of an input whose mask stands for {mask.shape[1]}, so "
                "padding cannot be told apart. Student and teacher must down-sample alike; for models that do so in a "
                "way of their own, pass `head=EmbeddingHead(frame_count=…)`."
            )
        return mask.bool()


class SimilarityHead(EmbeddingHead):
    """How alike the rows of a micro-batch are: `(B, B)`, for vectors whose widths differ.

        z_ij = scale · cos(vector_i, vector_j),  j ≠ i

    Each row chooses among the other rows, so that a divergence compares whom the student and the teacher find near.
    On the diagonal z is −∞. Rows are compared **within a micro-batch**: as for `DualEncoderHead`, accumulated batches
    are no larger batch. A row that is alone in its micro-batch is not compared.

    Args:
        scale: 1 / scale is the temperature of the cosines, by which the term's own temperature is multiplied.
        pooling: as in `EmbeddingHead`.
        frame_count: as in `EmbeddingHead`.

    Raises:
        ConfigurationError: as `EmbeddingHead`, or if `scale` is not above 0.

    References:
        Abbasi Koohpayegani, Tejankar, Pirsiavash: CompRess: Self-Supervised Learning by Compressing Representations,
        2020, https://arxiv.org/abs/2010.14713, there with a memory of rows in place of the micro-batch.
    """

    is_distribution = True
    compares_rows: ClassVar[bool] = True

    def __init__(self, pooling: Pooling = "mean", scale: float = 20.0, frame_count: FrameCount | None = None) -> None:
        super().__init__(pooling, normalize=True, frame_count=frame_count)
        if not scale > 0:
            raise ConfigurationError(f"`scale` must be above 0, got {scale!r}. 20 is a temperature of 0.05.")
        self.scale = scale

    def of_vectors(self, vectors: Tensor) -> Tensor:
        """How alike they are, `(B, B)`."""
        vectors = super().of_vectors(vectors)
        oneself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
        return (self.scale * vectors @ vectors.t()).masked_fill(oneself, -torch.inf)

    def mask(self, batch: Batch) -> Tensor:
        rows = super().mask(batch)
        return rows & (len(rows) > 1)

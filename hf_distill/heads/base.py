"""What we know of one kind of model head: which outputs are class scores, and where they count."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hf_distill.types import IGNORED_LABEL, Batch, Positions, Signals, Unit


TEXT_INPUTS = ("input_ids", "inputs_embeds")


class Head(ABC):
    """The contract between the Trainer and one kind of model head.

    A head holds no model. It reads the outputs and the batch of any model of its kind, so that student and teacher
    are read alike whatever their architectures. For a model that we do not know, subclass it and pass
    `DistillationTrainer(head=…)`.
    """

    auto_class: Any
    """The Auto class whose models have this head; it also loads a teacher that is given by name."""
    label_names: ClassVar[tuple[str, ...]] = ("labels",)
    """The entries of a batch that hold labels. A teacher never gets them."""
    is_language_model: ClassVar[bool] = False
    """Whether exp(label loss) is a perplexity."""
    is_distribution: ClassVar[bool] = True
    """Whether a softmax over the last axis of the logits is what the model means."""
    positions_are_tokens: ClassVar[bool] = False
    """Whether the positions compared are the tokens of the input, so that both must read the same ones."""
    class_axis: ClassVar[int | None] = -1
    """The axis of the logits whose entries `id2label` names, along which student and teacher are aligned. None where
    it names none."""

    compares_rows: ClassVar[bool] = False
    """Whether a row is compared with the others of its micro-batch, so that it matters how a batch is split."""
    has_own_loss: ClassVar[bool] = True
    """Whether a model of this kind computes a loss when it is asked to."""

    @property
    def reading(self) -> str:
        """How this head reads outputs, where another model of the same kind may mean something else by its own."""
        return ""

    @abstractmethod
    def logits(self, outputs: Any, batch: Batch) -> Tensor:
        """The class scores, `(…, C)`."""

    @abstractmethod
    def mask(self, batch: Batch) -> Tensor:
        """Bool `(…)`: the positions of `logits` at which student and teacher are compared."""

    def labels(self, batch: Batch) -> dict[str, Any]:
        """What a model is called with to compute its own loss."""
        return {name: batch[name] for name in self.label_names if name in batch}

    def derived_inputs(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        """What one model, student or teacher, reads besides the batch because it is not called with labels."""
        return {}

    def resolved(self, batch: Batch) -> "Head":
        """The head that this batch's labels call for, where a configuration leaves that open; else this one."""
        return self

    def num_labels(self, batch: Batch) -> Tensor:
        """How many labels the model's own loss averages over, 0-d."""
        labels: Tensor = batch["labels"]
        return (labels != IGNORED_LABEL).sum()

    def label_loss(self, outputs: Any, batch: Batch) -> Tensor:
        """The model's own loss, summed over its labels, 0-d.

        Where not a single label counts, the model's mean is 0 / 0. The sum is 0 then, and the graph is kept.
        """
        count = self.num_labels(batch)
        mean = at_least_float32(outputs["loss"])
        return torch.where(count > 0, mean, torch.zeros_like(mean)) * count

    def reads_weight(self, name: str) -> bool:
        """Whether what is compared depends on a weight of a model of this kind."""
        return True

    def targets(self, batch: Batch) -> Tensor | None:
        """The class that the labels name at each position of `mask`, −100 where none; None if they name no class."""
        return batch["labels"] if self.has_labels(batch) else None

    def has_labels(self, batch: Batch) -> bool:
        """Whether the batch holds every label that the model's own loss needs."""
        return all(batch.get(name) is not None for name in self.label_names)

    def positions(self, batch: Batch) -> Positions:
        """Where the batch counts, with the number of every unit."""
        mask = self.mask(batch)
        labels = self.num_labels(batch) if self.has_labels(batch) else torch.zeros_like(mask.sum())
        tokens = {Unit.TOKEN: self.tokens(batch), Unit.DECODER_TOKEN: self.decoder_tokens(batch)}
        real = tokens[Unit.TOKEN]
        num_rows = torch.full_like(mask.sum(), len(mask if real is None else real))
        counts = {unit: num_rows if real is None else real.sum() for unit, real in tokens.items()}
        return Positions(
            mask,
            {Unit.LABEL: labels, Unit.POSITION: mask.sum(), Unit.ROW: num_rows, **counts},
            tokens,
            self.targets(batch),
        )

    def tokens(self, batch: Batch) -> Tensor | None:
        """Bool `(B, L)`: the tokens that are no padding, choices counted as rows. None where the rows are no text."""
        inputs: Tensor | None = next((batch[name] for name in TEXT_INPUTS if batch.get(name) is not None), None)
        if inputs is None:
            return None
        if inputs.ndim == 3 and not inputs.is_floating_point():
            batch = {name: batch[name].flatten(0, 1) for name in ("input_ids", "attention_mask") if name in batch}
        return real_tokens(batch)

    def decoder_tokens(self, batch: Batch) -> Tensor | None:
        """Those that the decoder of an encoder–decoder reads, which by default are the tokens of the encoder."""
        return self.tokens(batch)

    def signals(self, outputs: Any, batch: Batch) -> Signals:
        """What the model says: its logits, and its own loss if it was called with labels."""
        has_loss = isinstance(outputs, Mapping) and outputs.get("loss") is not None
        return Signals(
            logits=self.logits(outputs, batch),
            label_loss=self.label_loss(outputs, batch) if has_loss else None,
            is_distribution=self.is_distribution,
        )


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def one_per_row(batch: Batch) -> Tensor:
    """Bool `(B,)`, True for every row."""
    tensor = _counting_rows(batch)
    return torch.ones(len(tensor), dtype=torch.bool, device=tensor.device)


def num_rows(batch: Batch) -> int:
    """How many rows the batch has."""
    return len(_counting_rows(batch))


def _counting_rows(batch: Batch) -> Tensor:
    """An entry with one row for each of the batch's: a text where there is one, since one tensor may hold the patches
    of all images; else the first tensor, since a detector's labels are nested in lists and dictionaries."""
    texts = {name: batch[name] for name in TEXT_INPUTS if name in batch}
    return next(value for value in {**texts, **batch}.values() if isinstance(value, Tensor) and value.ndim)


def real_tokens(batch: Batch) -> Tensor:
    """Bool `(B, L)`: the tokens that are no padding."""
    attention_mask: Tensor | None = batch.get("attention_mask")
    if attention_mask is not None and attention_mask.ndim == 2:
        return attention_mask.bool()
    inputs = batch["input_ids"] if batch.get("input_ids") is not None else batch["inputs_embeds"]
    return torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)

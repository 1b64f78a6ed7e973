"""Heads that choose a class for a row (a text, an image, a sound) or for each token of it."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForNextSentencePrediction,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from transformers.trainer_utils import unwrap_peft_model

from hf_distill.errors import ConfigurationError
from hf_distill.heads.base import Head, one_per_row, real_tokens
from hf_distill.heads.segmentation import SemanticSegmentationHead
from hf_distill.types import IGNORED_LABEL, Batch


class SingleLabelHead(Head):
    """One class per row: logits `(B, C)`, every row compared, labelled or not.

    Args:
        auto_class: the Auto class of classifiers of texts, images or sounds.
        open_classes: C, where the configuration has no `problem_type`. As in Transformers, labels of floats `(B, C)`
            then make it a choice of many classes.
    """

    def __init__(self, auto_class: Any = AutoModelForSequenceClassification, open_classes: int | None = None) -> None:
        self.auto_class = auto_class
        self.open_classes = open_classes

    def resolved(self, batch: Batch) -> Head:
        labels = batch.get("labels")
        if self.open_classes is None or not isinstance(labels, Tensor) or not labels.is_floating_point():
            return self
        is_per_class = labels.ndim == 2 and labels.shape[1] == self.open_classes
        return MultiLabelHead(self.open_classes, self.auto_class) if is_per_class else self

    def logits(self, outputs: Any, batch: Batch) -> Tensor:
        logits: Tensor = outputs["logits"]
        return logits

    def mask(self, batch: Batch) -> Tensor:
        return one_per_row(batch)


class MultiLabelHead(SingleLabelHead):
    """Any number of classes per row: each class is a yes or no of its own.

    The logit z of a class is the pair (z, 0), whose softmax is (sigmoid(z), 1 − sigmoid(z)). So logits are
    `(B, C, 2)` and a divergence of distributions is one of Bernoulli distributions.

    Args:
        num_classes: C.
        auto_class: as in `SingleLabelHead`.
    """

    class_axis = -2

    def __init__(self, num_classes: int, auto_class: Any = AutoModelForSequenceClassification) -> None:
        super().__init__(auto_class)
        self.num_classes = num_classes

    def logits(self, outputs: Any, batch: Batch) -> Tensor:
        logits = outputs["logits"]
        return torch.stack((logits, torch.zeros_like(logits)), dim=-1)

    def mask(self, batch: Batch) -> Tensor:
        return super().mask(batch)[:, None].expand(-1, self.num_classes)

    def targets(self, batch: Batch) -> Tensor | None:
        return 1 - batch["labels"].round().long() if self.has_labels(batch) else None

    def num_labels(self, batch: Batch) -> Tensor:
        return _number(batch["labels"].numel(), batch)


class RegressionHead(SingleLabelHead):
    """Numbers instead of classes: outputs `(B, N)`, compared by their squared difference."""

    is_distribution = False

    def targets(self, batch: Batch) -> Tensor | None:
        return None

    def num_labels(self, batch: Batch) -> Tensor:
        return _number(len(batch["labels"]), batch)


class MultipleChoiceHead(SingleLabelHead):
    """One of several continuations: logits `(B, choices)`."""

    class_axis = None

    def __init__(self) -> None:
        super().__init__(AutoModelForMultipleChoice)


class NextSentenceHead(SingleLabelHead):
    """Whether the second text follows the first: logits `(B, 2)`."""

    class_axis = None

    def __init__(self) -> None:
        super().__init__(AutoModelForNextSentencePrediction)


class TokenClassificationHead(Head):
    """One class per token: logits `(B, L, C)`, compared at the labelled tokens.

    Without labels, all real tokens are compared.

    Args:
        compare: "labelled", or "real" for all real tokens, also where there are labels: the further pieces of a word,
            which carry none, learn from the teacher too. The labels' loss stays as it is.

    Raises:
        ConfigurationError: if `compare` is neither.
    """

    auto_class = AutoModelForTokenClassification
    positions_are_tokens = True

    def __init__(self, compare: Literal["labelled", "real"] = "labelled") -> None:
        if compare not in ("labelled", "real"):
            raise ConfigurationError(f"`compare` must be 'labelled' or 'real', got {compare!r}.")
        self.compare = compare

    def logits(self, outputs: Any, batch: Batch) -> Tensor:
        logits: Tensor = outputs["logits"]
        return logits

    def mask(self, batch: Batch) -> Tensor:
        labels: Tensor | None = batch.get("labels")
        return real_tokens(batch) if labels is None or self.compare == "real" else labels != IGNORED_LABEL


def check_class_indices(batch: Batch, head: Head, student: nn.Module) -> None:
    """Labels of classes are their numbers, of which torch would only say that a target is out of bounds.

    Raises:
        ConfigurationError: if some are none of the student's.
    """
    num_classes = getattr(getattr(unwrap_peft_model(student), "config", None), "num_labels", None)
    is_index = type(head) in (SingleLabelHead, TokenClassificationHead, SemanticSegmentationHead)
    labels = head.targets(batch) if is_index else None
    if num_classes is None or not isinstance(labels, Tensor) or labels.is_floating_point():
        return
    indices = labels[labels != IGNORED_LABEL]
    outside = indices[(indices < 0) | (indices >= num_classes)]
    if len(outside):
        ignored = head.ignored_label if isinstance(head, SemanticSegmentationHead) else IGNORED_LABEL
        raise ConfigurationError(
            f"`labels` holds {sorted(set(outside.tolist()))}, and the student has num_labels={num_classes}, so its "
            f"classes are 0 to {num_classes - 1}. Number the labels from 0 on, with {ignored} for those that do "
            "not count, or load the student with `num_labels=` of the data."
        )


def _number(value: int, batch: Batch) -> Tensor:
    return torch.full((), value, device=batch["labels"].device)

"""The nouns of the library: a student imitates *signals* at *positions*, and a *term* sums how far off it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from torch import Tensor


Batch = Mapping[str, Any]
"""What a data collator returns: names to tensors."""

TEACHER_PREFIX = "teacher_"
"""Where a batch holds entries that begin so, the teacher reads these, under the names that follow the prefix."""
TEACHER_POSITIONS = f"{TEACHER_PREFIX}positions"
"""Where a batch holds this entry, `(B, L)`, it says for each of the student's positions which one of the teacher's has
read the same text; -1 where none has, so that nothing is compared there."""


class Unit(str, Enum):
    """What a term is counted in. The Trainer divides a term's sum by the number of its units in the whole batch."""

    LABEL = "label"
    """Labels that the student's own loss averages over."""
    POSITION = "position"
    """Positions (rows, tokens, answer ends …) at which the outputs of student and teacher are compared."""


class TermLoss(NamedTuple):
    """A sum over the units of one micro-batch and their number. Never a mean: only the Trainer divides."""

    total: Tensor
    """0-d, float32, with the graph to the student."""
    count: Tensor  # type: ignore[assignment]  # nobody counts occurrences in this tuple
    """0-d, the units summed over."""


@dataclass(frozen=True)
class Signals:
    """What one model says about one batch."""

    logits: Tensor
    """`(…, C)`: one row of class scores per position of `Positions.mask`."""
    label_loss: Tensor | None = None
    """0-d: the model's own loss, summed over the labels. None where labels were not given."""
    is_distribution: bool = True
    """Whether a softmax over the last axis of `logits` is what the model means (not so in regression)."""
    encoder_states: Tensor | None = None
    """`(B, S, H)`: what the encoder of an encoder–decoder made."""


@dataclass(frozen=True)
class Positions:
    """Where one batch counts."""

    mask: Tensor
    """Bool `(…)`: True where `Signals.logits` of student and teacher are compared."""
    counts: Mapping[Unit, Tensor]
    """How many of each unit this micro-batch has, each 0-d."""
    targets: Tensor | None = None
    """Int64 `(…)`: the class of `Signals.logits` that the labels name at each position, −100 where they name none.
    None where labels are not given, or name no class."""


@dataclass(frozen=True)
class Requirements:
    """What a term reads. Requirements of several terms are joined with `|`."""

    labels: bool = False
    """The student's own loss, hence labels in the batch."""
    teacher: bool = False
    """The teacher's signals, hence a forward pass of the teacher."""

    def __or__(self, other: "Requirements") -> "Requirements":
        return Requirements(labels=self.labels or other.labels, teacher=self.teacher or other.teacher)

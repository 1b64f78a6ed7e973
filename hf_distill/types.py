"""The nouns of the library: a student imitates *signals* at *positions*, and a *term* sums how far off it is."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from hf_distill.errors import UnsupportedModelError


Batch = Mapping[str, Any]
"""What a data collator returns: names to tensors."""

TEACHER_PREFIX = "teacher_"
"""Where a batch holds entries that begin so, the teacher reads these, under the names that follow the prefix."""
CACHED_PREFIX = f"{TEACHER_PREFIX}cached_"
"""What the entries begin with that hold what a teacher has said before."""
TEACHER_POSITIONS = f"{TEACHER_PREFIX}positions"
"""Where a batch holds this entry, `(B, L)`, it says for each of the student's positions which one of the teacher's has
read the same text; -1 where none has, so that nothing is compared there."""


class Unit(str, Enum):
    """What a term is counted in. The Trainer divides a term's sum by the number of its units in the whole batch."""

    LABEL = "label"
    """Labels that the student's own loss averages over."""
    POSITION = "position"
    """Positions (rows, tokens, answer ends, images …) at which the outputs of student and teacher are compared."""
    TOKEN = "token"
    """Real tokens that a model reads, or frames of a sound that is written down. Of images and other sounds, whose
    rows all have one length: rows."""
    DECODER_TOKEN = "decoder token"
    """Those that the decoder of an encoder–decoder reads."""
    ROW = "row"
    """Sequences, images or sounds."""


class TermLoss(NamedTuple):
    """A sum over the units of one micro-batch and their number. Never a mean: only the Trainer divides."""

    total: Tensor
    """0-d, float32, with the graph to the student."""
    count: Tensor  # type: ignore[assignment]  # nobody counts occurrences in this tuple
    """0-d, the units summed over."""


FeatureKind = Literal["hidden_states", "queries", "keys", "values", "attentions"]


@dataclass(frozen=True)
class Feature:
    """The name of one tensor inside a model."""

    kind: FeatureKind
    """`hidden_states` are `(B, L, H)`; `queries`, `keys` and `values` `(B, heads, L, d)`, as the projections give
    them, before any rotation, normalisation or scaling; `attentions` `(B, heads, L, L)`, probabilities."""
    layer: int
    """n is the n-th block, from 1; hidden states have a layer 0 too, which is what the first block reads. The last
    hidden state is the model's own `hidden_states[-1]`: where a final normalisation belongs to it (GPT-2, Llama, T5),
    it is included."""
    side: str | None = None
    """Which stack of blocks, `"encoder"` or `"decoder"`, where a model has more than one."""
    projection: str | None = None
    """The learned projection that is applied to it; None for the tensor as it is."""


@dataclass(frozen=True)
class StackShape:
    """How large one stack of blocks is."""

    num_layers: int
    hidden_size: int
    num_attention_heads: int = 0
    """0 where the blocks have several attentions, or none that is known how to be read."""
    attention_width: int = 0
    """Of all queries of a token together, which is not the hidden size in every model."""


@dataclass(frozen=True)
class Anatomy:
    """The stacks of blocks of one model, by their side."""

    model: str
    """The name of the model's class."""
    stacks: Mapping[str, StackShape]
    """A model with a single stack calls it `""`."""

    def stack(self, side: str | None) -> StackShape:
        """The stack of that side, or the only one.

        Raises:
            UnsupportedModelError: if there is no such stack, or several and no `side` to choose between them.
        """
        if len(self.stacks) == 1 and (side is None or "" in self.stacks):
            return next(iter(self.stacks.values()))
        if side is None or side not in self.stacks:
            named = [f"side={each!r}" for each in sorted(self.stacks) if each in ("encoder", "decoder")]
            remedy = "Layers of such models are not compared. Use terms that read logits and labels only."
            if named:
                remedy = f"Pass {' or '.join(named)} to the recipe, or to its terms."
            raise UnsupportedModelError(
                f"{self.model} has the stacks {sorted(self.stacks)}, and side={side!r} names none of them. {remedy}"
            )
        return self.stacks[side]


IGNORED_LABEL = -100
"""The label that Transformers' losses leave out."""

TAIL_EXPONENTS = (1.0, 0.5, 0.25)
"""The powers, each 1 / temperature, at which it is known what the classes beyond the k likeliest weigh together."""


@dataclass(frozen=True)
class TopKLogits:
    """The k likeliest of C classes, and how much all others weigh together.

    It answers what a tensor of class scores `(…, C)` answers to the Trainer: its shape, where it lies, rows of it, and
    the likeliest class. [`functional.on_top_k`] makes a divergence of it.
    """

    values: Tensor
    """`(…, k)`: log-probabilities at temperature 1, the largest first. −∞ is no class; its index repeats another's."""
    indices: Tensor
    """`(…, k)`, int64: the classes they belong to."""
    tail: Tensor
    """`(…, 3)`: log Σ p_c^β over all other classes, for each β of `TAIL_EXPONENTS`."""
    num_others: int
    """How many these are."""
    num_classes: int
    """C."""
    drawn_at: float | None = None
    """If the k were drawn: the temperature at which `values` are right on average, when they are divided by it."""

    @property
    def shape(self) -> torch.Size:
        return torch.Size((*self.values.shape[:-1], self.num_classes))

    @property
    def ndim(self) -> int:
        return self.values.ndim

    @property
    def device(self) -> torch.device:
        return self.values.device

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.indices.nbytes + self.tail.nbytes

    def __getitem__(self, index: Any) -> "TopKLogits":
        """The same at some of the positions."""
        return self.of_parts(lambda part: part[index])

    def of_parts(self, rearranged: Callable[[Tensor], Tensor]) -> "TopKLogits":
        """The same at other positions: a function of tensors `(…, *)` that leaves the last axis alone."""
        parts: dict[str, Any] = {name: rearranged(getattr(self, name)) for name in ("values", "indices", "tail")}
        return replace(self, **parts)

    def argmax(self, dim: int = -1) -> Tensor:
        """The likeliest class at each position, `(…)`."""
        return self.indices.gather(-1, self.values.argmax(-1, keepdim=True)).squeeze(-1)

    def float(self) -> Tensor:
        """Log-probabilities of all classes, `(…, C)`, float32, as if all others were equally likely."""
        even = self.tail[..., :1].float() - math.log(max(1, self.num_others))
        spread = even.expand(self.shape).clone()
        return spread.scatter_reduce_(-1, self.indices, self.values.float(), "amax", include_self=False)


@dataclass(frozen=True)
class Signals:
    """What one model says about one batch."""

    logits: Tensor
    """`(…, C)`: one row of class scores per position of `Positions.mask`, or several, over which a term sums."""
    label_loss: Tensor | None = None
    """0-d: the model's own loss, summed over the labels. None where labels were not given."""
    is_distribution: bool = True
    """Whether a softmax over the last axis of `logits` is what the model means (not so in regression)."""
    boxes: Tensor | None = None
    """`(…, 4)`: a detector's boxes, as centre, width and height. There is one for each row of `logits`, whose last
    class is then "no object", or one for each C rows `(…, C, 2)`, each a yes or no to one class."""
    features: Mapping[Feature, Tensor] = field(default_factory=dict)
    """What the model computed on the way, as far as the objective reads it."""
    encoder_states: Tensor | None = None
    """`(B, S, H)`: what the encoder of an encoder–decoder made."""


@dataclass(frozen=True)
class Positions:
    """Where one batch counts."""

    mask: Tensor
    """Bool `(…)`, the leading axes of `Signals.logits`: True where student and teacher are compared."""
    counts: Mapping[Unit, Tensor]
    """How many of each unit this micro-batch has, each 0-d."""
    tokens: Mapping[Unit, Tensor | None] = field(default_factory=dict)
    """For `Unit.TOKEN` and `Unit.DECODER_TOKEN`, bool `(B, L)`: the tokens that are no padding. None if all are, as in
    images and sounds."""
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
    student_features: frozenset[Feature] = field(default=frozenset(), repr=False)
    """What is read inside of the student."""
    teacher_features: frozenset[Feature] = field(default=frozenset(), repr=False)
    """What is read inside of the teacher."""

    def __or__(self, other: "Requirements") -> "Requirements":
        return Requirements(
            labels=self.labels or other.labels,
            teacher=self.teacher or other.teacher,
            student_features=self.student_features | other.student_features,
            teacher_features=self.teacher_features | other.teacher_features,
        )

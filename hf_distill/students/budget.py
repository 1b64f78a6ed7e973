"""How small or how fast a student is to be, and the student that is, found by measuring."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from transformers import PreTrainedModel

from hf_distill.errors import ConfigurationError, UnsupportedModelError
from hf_distill.stopwatch import seconds_of
from hf_distill.students.from_teacher import student_from_teacher
from hf_distill.students.stacks import stacks_of
from hf_distill.students.width_families import family_of
from hf_distill.types import Batch


FORMS = "'3x faster', '3x smaller', '10MB' or '5ms'"
BYTES = {"KB": 1e3, "MB": 1e6, "GB": 1e9}
WIDTHS = (1.0, 0.75, 0.5, 0.25)
"""Shares of the teacher's width that are tried."""
MIN_RUNS, MIN_SECONDS, WARM_UP = 10, 0.5, 2


@dataclass(frozen=True)
class Budget:
    """What a student may take."""

    kind: Literal["seconds", "bytes"]
    limit: float | None = None
    """Of one forward pass, or of the weights; None where it is a share of the teacher's."""
    factor: float | None = None
    """How many times less than the teacher."""

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """A budget in words: `"3x faster"`, `"3x smaller"`, `"10MB"` (or KB, GB), `"5ms"` (or s).

        Raises:
            ConfigurationError: for anything else, and for what no smaller student could be.

        Example:

            >>> Budget.parse("3x faster")
            Budget(kind='seconds', limit=None, factor=3.0)
            >>> Budget.parse("10MB").limit
            10000000.0
        """
        words = text.strip()
        if found := re.fullmatch(r"([\d.]+) *x +(faster|smaller)", words):
            budget = cls("seconds" if found[2] == "faster" else "bytes", factor=_number(found[1], text))
        elif found := re.fullmatch(r"([\d.]+) *(KB|MB|GB)", words, re.IGNORECASE):
            budget = cls("bytes", _number(found[1], text) * BYTES[found[2].upper()])
        elif found := re.fullmatch(r"([\d.]+) *(ms|s)", words):
            budget = cls("seconds", _number(found[1], text) * (1e-3 if found[2] == "ms" else 1.0))
        else:
            raise ConfigurationError(f"budget={text!r} is not understood. Write it as {FORMS}.")
        if budget.factor is not None and budget.factor <= 1:
            raise ConfigurationError(f"budget={text!r} is no less than the teacher takes. Ask for more than 1x.")
        return budget

    def limit_for(self, teacher: float) -> float:
        """The most that a student may take, where the teacher takes that much."""
        return self.limit if self.limit is not None else teacher / (self.factor or 1.0)

    def amounts(self, teacher: PreTrainedModel, student: PreTrainedModel, batch: Batch | None) -> "Amounts":
        """What the two take, measured side by side."""
        if self.kind == "bytes" or batch is None:
            return Amounts(weight_bytes(teacher), weight_bytes(student))
        return Amounts(*latencies((teacher, student), batch))


class Amounts(NamedTuple):
    """Seconds or bytes."""

    teacher: float
    student: float


@dataclass(frozen=True)
class Suggestion:
    """The student that fits."""

    sizes: Mapping[str, Any]
    """Arguments of [`student_from_teacher`] that make it."""
    measured: float
    """Its seconds or bytes."""
    teacher: float
    """The teacher's."""
    limit: float
    kind: Literal["seconds", "bytes"]
    tried: tuple[tuple[Mapping[str, Any], float], ...] = field(default=())
    """Every student that was measured."""

    def __str__(self) -> str:
        sizes = ", ".join(f"{name}={size}" for name, size in self.sizes.items())
        return (
            f"{sizes}: {_amount(self.measured, self.kind)}, of {_amount(self.limit, self.kind)} allowed; the teacher "
            f"takes {_amount(self.teacher, self.kind)}"
        )


def suggest_student(teacher: PreTrainedModel, budget: Budget | str, batch: Batch | None = None) -> Suggestion:
    """The largest student of a teacher that fits a budget, found by measuring.

    Students of the teacher's width and of three quarters, a half and a quarter of it (where the architecture can be
    made narrower) are made with fewer and fewer layers. Of each width the deepest that fits is looked for by halving,
    and of all that fit the one that keeps most weights is taken.

    Args:
        teacher: any model that [`student_from_teacher`] takes.
        budget: a [`Budget`], or one in words.
        batch: the inputs on which forward passes are timed, on the teacher's device. Needed for a budget of time.

    Raises:
        ConfigurationError: if the budget is not understood, there is nothing to time, or nothing is small enough.
        UnsupportedModelError: if the teacher has no students.

    Example:

        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
        >>> teacher = BertForSequenceClassification(BertConfig(vocab_size=50, num_hidden_layers=8, **sizes))
        >>> suggest_student(teacher, "2x smaller").sizes
        {'num_hidden_layers': 6, 'hidden_size': 24, 'intermediate_size': 48}
    """
    budget = Budget.parse(budget) if isinstance(budget, str) else budget
    if budget.kind == "seconds" and batch is None:
        raise ConfigurationError("a budget of time needs a `batch` to be timed on.")
    stacks = stacks_of(teacher)
    depth = max(stack.size for stack in stacks)
    tried: list[tuple[int, dict[str, Any], Amounts]] = []
    fitting: list[tuple[int, dict[str, Any], Amounts]] = []
    for width in _widths(teacher):
        low, high = 0, depth + (1 if width else 0)  # the deepest that fits is at least low, and less than high
        while high - low > 1:
            layers = (low + high) // 2
            sizes = {**_depth(stacks, layers), **width}
            student = student_from_teacher(teacher, **sizes)
            amounts = budget.amounts(teacher, student, batch)
            tried.append((student.num_parameters(), sizes, amounts))
            if amounts.student <= budget.limit_for(amounts.teacher):
                low = layers
                fitting.append(tried[-1])
            else:
                high = layers
    if not fitting:
        _, sizes, amounts = min(tried, key=lambda each: each[-1].student)
        raise ConfigurationError(
            f"nothing fits a budget of {_amount(budget.limit_for(amounts.teacher), budget.kind)}: the smallest "
            f"student that was tried ({', '.join(f'{name}={size}' for name, size in sizes.items())}) takes "
            f"{_amount(amounts.student, budget.kind)}, the teacher {_amount(amounts.teacher, budget.kind)}. Allow "
            "more, or train a student of another architecture."
        )
    _, sizes, amounts = max(fitting, key=lambda each: each[0])
    every = tuple((each, amounts.student) for _, each, amounts in tried)
    return Suggestion(sizes, amounts.student, amounts.teacher, budget.limit_for(amounts.teacher), budget.kind, every)


def latencies(models: Sequence[PreTrainedModel], batch: Batch) -> list[float]:
    """The seconds of the fastest of several forward passes of each, without gradient, in eval mode.

    They take turns, and whatever else the machine does can only make a pass slower.
    """
    modes = [model.training for model in models]
    rounds: list[list[float]] = []
    with torch.inference_mode():
        for model in models:
            model.eval()
        while len(rounds) < MIN_RUNS + WARM_UP or sum(map(sum, rounds)) < MIN_SECONDS:
            rounds.append([seconds_of(partial(model, **batch), model.device) for model in models])
    for model, mode in zip(models, modes, strict=True):
        model.train(mode)
    return [min(times) for times in zip(*rounds[WARM_UP:], strict=True)]


def weight_bytes(model: PreTrainedModel) -> int:
    """Bytes of the weights, those that are shared once."""
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


def _depth(stacks: tuple[Any, ...], layers: int) -> dict[str, Any]:
    """As many layers of the longest stack, and of others their share; nothing if that is all of them."""
    depth = max(stack.size for stack in stacks)
    if layers == depth:
        return {}
    if len(stacks) == 1:
        return {"num_hidden_layers": layers}
    return {"num_hidden_layers": {stack.name: max(1, round(stack.size * layers / depth)) for stack in stacks}}


def _widths(teacher: PreTrainedModel) -> Iterator[dict[str, int]]:
    """Sizes of layers, the teacher's own first, as far as the architecture can be made narrower."""
    yield {}
    config: Any = teacher.config
    try:
        family = family_of(teacher)
    except UnsupportedModelError:
        return
    step = 8 if family.has_head_size else config.hidden_size // config.num_attention_heads
    before = config.hidden_size
    for share in WIDTHS[1:]:
        hidden = max(1, math.floor(share * config.hidden_size / step)) * step
        if hidden < before:
            before = hidden
            neurons = getattr(config, family.intermediate_field) * hidden // config.hidden_size
            yield {"hidden_size": hidden, "intermediate_size": max(1, neurons)}


def _number(digits: str, text: str) -> float:
    try:
        number = float(digits)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise ConfigurationError(f"budget={text!r} has no finite number above 0. Write it as {FORMS}.")
    return number


def _amount(amount: float, kind: str) -> str:
    return f"{amount * 1e3:.3g} ms" if kind == "seconds" else f"{amount / 1e6:.3g} MB"

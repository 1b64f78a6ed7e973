"""Response knowledge, in two parts: of the labelled class, and of all others."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_distill.errors import MissingInputError, MissingTeacherError
from hf_distill.functional.decoupled import target_class_kl
from hf_distill.schedules import Schedule, as_schedule
from hf_distill.terms.soft_targets import SoftTargetTerm, at_counted
from hf_distill.types import Positions, Requirements, Signals, TermLoss, Unit


@dataclass(frozen=True)
class DecoupledTerm(SoftTargetTerm):
    """One of the two parts of the divergence between softened class distributions, for what the labels name.

        Σ over labels of T² · KL(p ‖ q), on the labelled class against the rest, or on the rest alone

    Unit: label. Reads: the logits of both, and the class that each label names. Learns: nothing.

    Args:
        temperature: T > 0, a number or a schedule over training.
        divergence: `target_class_kl` or `non_target_class_kl` of `hf_distill.functional`.

    Raises:
        ConfigurationError: if the temperature is, or ever becomes, 0 or less, or `divergence` is no function.

    References:
        Zhao, Cui, Song, Qiu, Liang: Decoupled Knowledge Distillation, 2022, https://arxiv.org/abs/2203.08679,
        section 3.

    Example:

        >>> import torch
        >>> from hf_distill.types import Positions, Signals, Unit
        >>> student, teacher = Signals(torch.tensor([[2.0, 1.0, 1.0]]).log()), Signals(torch.zeros(1, 3))
        >>> where = Positions(torch.tensor([True]), {Unit.LABEL: torch.tensor(1)}, targets=torch.tensor([0]))
        >>> term = DecoupledTerm(temperature=1.0)
        >>> term(student, teacher, where, progress=0.0).total  # ⅓ log(⅓ / ½) + ⅔ log(⅔ / ½)
        tensor(0.0566)
    """

    temperature: float | Schedule = 4.0
    divergence: Callable[..., Tensor] = target_class_kl

    reads_every_class = True
    unit = Unit.LABEL
    requires = Requirements(labels=True, teacher=True)

    def __call__(self, student: Signals, teacher: Signals | None, where: Positions, progress: float) -> TermLoss:
        if teacher is None:
            raise MissingTeacherError("The decoupled term compares with a teacher's logits, and got teacher=None.")
        if where.targets is None or where.targets.dtype != torch.int64 or where.targets.shape != where.mask.shape:
            given = "none" if where.targets is None else f"{where.targets.dtype} {tuple(where.targets.shape)}"
            raise MissingInputError(
                "The decoupled term asks which class the labels name at each of the positions "
                f"{tuple(where.mask.shape)}, and the head's targets are {given}. Give the data set labels that name "
                "classes, let `targets` of your head return them, or use `SoftTargetTerm`."
            )
        temperature = as_schedule(self.temperature)(progress)
        counted = where.mask & (where.targets >= 0)
        operands = student.logits, teacher.logits, where.targets
        values = at_counted(self.divergence, counted, *operands, temperature=temperature)
        return TermLoss(values.sum(), where.counts[self.unit])

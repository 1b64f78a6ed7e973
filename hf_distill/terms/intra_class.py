"""Response knowledge across the rows of a batch: of which the teacher finds a class likelier than of others."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_distill.errors import MissingTeacherError, UnsupportedModelError
from hf_distill.functional.correlations import intra_class_pearson_distance
from hf_distill.schedules import Schedule, as_schedule
from hf_distill.terms.soft_targets import SoftTargetTerm, at_counted
from hf_distill.types import Positions, Signals, TermLoss


@dataclass(frozen=True)
class IntraClassTerm(SoftTargetTerm):
    """The mean over the classes of how badly their probabilities correlate over the positions, for each position.

        n · 1 / C · Σ_c (1 − ρ(student's probabilities of c, teacher's probabilities of c)),  over the n positions

    The positions **of one micro-batch** are compared with each other, so the gradient depends on how a batch is split
    into micro-batches and over processes. A micro-batch weighs as much as it has positions. Of many labels, the
    classes are yes and no.

    Unit: position. Reads: the logits of both. Learns: nothing.

    Args:
        temperature: T > 0, a number or a schedule over training.
        divergence: a function with the signature of `intra_class_pearson_distance`, which gives a value a class.

    Raises:
        ConfigurationError: if the temperature is, or ever becomes, 0 or less.

    References:
        Huang, You, Wang, Qian, Xu: Knowledge Distillation from A Stronger Teacher, 2022,
        https://arxiv.org/abs/2205.10536, the loss L_intra.

    Example:

        >>> import torch
        >>> from hf_distill.types import Positions, Signals, Unit
        >>> teacher = torch.tensor([[2.0, 2.0], [1.0, 3.0], [1.0, 3.0]]).log()
        >>> where = Positions(torch.ones(3, dtype=torch.bool), {Unit.POSITION: torch.tensor(3)})
        >>> IntraClassTerm()(Signals(teacher[[1, 0, 2]]), Signals(teacher), where, progress=0.0).total
        tensor(4.5000)
    """

    temperature: float | Schedule = 1.0
    divergence: Callable[..., Tensor] = intra_class_pearson_distance

    reads_every_class = True

    def __call__(self, student: Signals, teacher: Signals | None, where: Positions, progress: float) -> TermLoss:
        if teacher is None:
            raise MissingTeacherError("The intra-class term compares with a teacher's logits, and got teacher=None.")
        if not student.is_distribution:
            raise UnsupportedModelError(
                "The intra-class term compares probabilities of classes, and the scores of this head are no logits (a "
                "regression?). Use `SoftTargetTerm`, which compares such scores by their squared difference."
            )
        temperature = as_schedule(self.temperature)(progress)
        values = at_counted(self.divergence, where.mask, student.logits, teacher.logits, temperature=temperature)
        is_absent = torch.isneginf(student.logits) | ~where.mask[..., None]
        num_classes = (~is_absent.flatten(0, -2).all(dim=0)).sum().clamp(min=1)
        count = where.counts[self.unit]
        return TermLoss(values.sum() / num_classes * count, count)

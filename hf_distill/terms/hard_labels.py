"""Response knowledge, first half: the labels of the data."""

from dataclasses import dataclass

from hf_distill.errors import MissingInputError
from hf_distill.terms.base import Term
from hf_distill.types import Positions, Requirements, Signals, TermLoss, Unit


@dataclass(frozen=True)
class HardLabelTerm(Term):
    """The student's own loss.

        Σ over labels of the loss that the model computes when it is called with `labels`

    So it is the cross-entropy for a classifier, the squared error for a regression, and whatever a custom model's
    forward returns as `loss`; label smoothing and the Trainer's `compute_loss_func` are honoured.

    Unit: label. Reads: the labels of the batch. Learns: nothing.
    """

    unit = Unit.LABEL
    requires = Requirements(labels=True)

    def __call__(self, student: Signals, teacher: Signals | None, where: Positions, progress: float) -> TermLoss:
        if student.label_loss is None:
            raise MissingInputError(
                "The hard-label term reads the student's own loss, and the student returned none. Give the data set a "
                "label column that the student's forward takes, or drop the term (`alpha=0` in the arguments)."
            )
        return TermLoss(student.label_loss, where.counts[self.unit])

"""Where a detector's objects are."""

from dataclasses import dataclass

from torch import Tensor

from hf_distill.errors import ConfigurationError, MissingTeacherError, UnsupportedModelError
from hf_distill.functional.boxes import generalized_iou
from hf_distill.functional.masking import keep_counted
from hf_distill.schedules import is_finite_number
from hf_distill.terms.base import Term
from hf_distill.types import Positions, Requirements, Signals, TermLoss, Unit


@dataclass(frozen=True)
class BoxTerm(Term):
    """The distance between the student's boxes and the teacher's, as far as the teacher sees an object in them.

        Σ over images Σ over pairs of boxes w · (l1_weight · ‖student − teacher‖₁ + giou_weight · (1 − GIoU))

    The weight w is the teacher's score: the largest probability that it gives to a class. So the many boxes that hold
    no object hardly count. The sum over an image is not divided by the number of its boxes, which would make objects
    the lighter, the more boxes hold none.

    Unit: position (an image). Reads: logits of the teacher, boxes of both. Learns: nothing.

    Args:
        l1_weight: of the sum of absolute differences; boxes are in shares of the image's width and height.
        giou_weight: of 1 minus the generalised intersection over union.

    Raises:
        ConfigurationError: if a weight is below 0, or both are 0.

    References:
        Carion et al.: End-to-End Object Detection with Transformers, 2020, https://arxiv.org/abs/2005.12872, section
        3.1 (box loss) and appendix A.4 (its weights).
        Wang et al.: KD-DETR, 2022, https://arxiv.org/abs/2211.08071 (foreground rebalance weight w).

    Example:

        >>> import torch
        >>> from hf_distill.types import Positions, Signals, Unit
        >>> where = Positions(mask=torch.tensor([True]), counts={Unit.POSITION: torch.tensor(1)})
        >>> box, sure = torch.tensor([[[0.5, 0.5, 0.2, 0.2]]]), torch.tensor([[[30.0, 0.0]]])
        >>> BoxTerm()(Signals(sure, boxes=box + 0.1), Signals(sure, boxes=box), where, progress=0.0).total > 2
        tensor(True)
    """

    l1_weight: float = 5.0
    giou_weight: float = 2.0

    unit = Unit.POSITION
    requires = Requirements(teacher=True)

    def __post_init__(self) -> None:
        weights = (self.l1_weight, self.giou_weight)
        if not all(is_finite_number(weight) and weight >= 0 for weight in weights) or not sum(weights) > 0:
            raise ConfigurationError(
                "l1_weight and giou_weight must be numbers that are not below 0, nor both 0, got "
                f"{self.l1_weight!r} and {self.giou_weight!r}. DETR takes 5 and 2."
            )

    def __call__(self, student: Signals, teacher: Signals | None, where: Positions, progress: float) -> TermLoss:
        if teacher is None:
            raise MissingTeacherError("The box term compares with a teacher's boxes, and got teacher=None.")
        if student.boxes is None or teacher.boxes is None:
            lacking = [who for who, said in {"student": student, "teacher": teacher}.items() if said.boxes is None]
            raise UnsupportedModelError(
                f"The box term compares boxes, and these have none: {', '.join(lacking)}. Use it with detectors, "
                "whose head gives `Signals.boxes`, or drop the term."
            )
        ours, theirs = (keep_counted(boxes, where.mask) for boxes in (student.boxes, teacher.boxes))
        overlap = generalized_iou(ours, theirs)
        l1 = (ours.to(overlap.dtype) - theirs.to(overlap.dtype)).abs().sum(dim=-1)
        scores = keep_counted(_scores(teacher.logits.to(overlap.dtype), teacher.boxes.ndim), where.mask)
        values = scores * (self.l1_weight * l1 + self.giou_weight * (1 - overlap))
        return TermLoss(values.sum(), where.counts[self.unit])


def _scores(logits: Tensor, box_ndim: int) -> Tensor:
    """`(…)`: the largest probability of a class, for each box."""
    probabilities = logits.softmax(dim=-1)
    objects = probabilities[..., :-1] if logits.ndim == box_ndim else probabilities[..., 0]
    return objects.amax(dim=-1)

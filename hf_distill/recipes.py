"""Published methods, each a short function that returns an objective and reads like its paper."""

from hf_distill.objective import Objective
from hf_distill.schedules import Schedule
from hf_distill.terms import BoxTerm, HardLabelTerm, SoftTargetTerm


def hinton(temperature: float | Schedule = 2.0, alpha: float = 0.5) -> Objective:
    """Soft targets next to hard ones: L = α · L_labels + (1 − α) · T² · KL(teacher_T ‖ student_T).

    Args:
        temperature: T of the soft targets, above 0.
        alpha: weight of the labels, from 0 (teacher alone) to 1 (labels alone).

    References:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, https://arxiv.org/abs/1503.02531.
    """
    return Objective({"labels": (alpha, HardLabelTerm()), "soft": (1 - alpha, SoftTargetTerm(temperature))})


def hungarian_matching(
    temperature: float | Schedule = 1.0, labels: float = 1.0, classes: float = 1.0, boxes: float = 1.0
) -> Objective:
    """A detector's labels, and its teacher's classes and boxes: the first of the three parts of DETRDistill.

        L = labels · L_labels + classes · Σ T² · KL(teacher_T ‖ student_T) + boxes · Σ w · (5 · L1 + 2 · (1 − GIoU))

    Both sums run over the pairs of boxes of an image, as [`heads.query_matching`] pairs them, and are averaged over
    images; w is the teacher's score of a box. The features and the teacher's queries, which the paper learns from as
    well, are left out.

    Args:
        temperature: T of the classes, above 0.
        labels, classes, boxes: the weights; 0 leaves a term out.

    References:
        Chang et al.: DETRDistill: A Universal Knowledge Distillation Framework for DETR-families, 2023,
        https://arxiv.org/abs/2211.10156, section on Hungarian-matching logits distillation.
    """
    return Objective(
        {
            "labels": (labels, HardLabelTerm()),
            "soft": (classes, SoftTargetTerm(temperature)),
            "boxes": (boxes, BoxTerm()),
        }
    )

"""Published methods, each a short function that returns an objective and reads like its paper."""

from hf_distill.objective import Objective
from hf_distill.schedules import Schedule
from hf_distill.terms import HardLabelTerm, SoftTargetTerm


def hinton(temperature: float | Schedule = 2.0, alpha: float = 0.5) -> Objective:
    """Soft targets next to hard ones: L = α · L_labels + (1 − α) · T² · KL(teacher_T ‖ student_T).

    Args:
        temperature: T of the soft targets, above 0.
        alpha: weight of the labels, from 0 (teacher alone) to 1 (labels alone).

    References:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, https://arxiv.org/abs/1503.02531.
    """
    return Objective({"labels": (alpha, HardLabelTerm()), "soft": (1 - alpha, SoftTargetTerm(temperature))})

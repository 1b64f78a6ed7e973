"""Published methods, each a short function that returns an objective and reads like its paper."""

from hf_distill.objective import Objective
from hf_distill.schedules import Schedule
from hf_distill.terms import HardLabelTerm, SoftTargetTerm, UniversalLogitTerm


def hinton(temperature: float | Schedule = 2.0, alpha: float = 0.5) -> Objective:
    """Soft targets next to hard ones: L = α · L_labels + (1 − α) · T² · KL(teacher_T ‖ student_T).

    Args:
        temperature: T of the soft targets, above 0.
        alpha: weight of the labels, from 0 (teacher alone) to 1 (labels alone).

    References:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, https://arxiv.org/abs/1503.02531.
    """
    return Objective({"labels": (alpha, HardLabelTerm()), "soft": (1 - alpha, SoftTargetTerm(temperature))})


def uld(temperature: float | Schedule = 1.0, weight: float | Schedule = 1.5) -> Objective:
    """Universal logit distillation, for a teacher with another tokenizer: L = L_labels + λ · T · Σ_i |p_(i) − q_(i)|.

    Args:
        temperature: T of the sorted probabilities, above 0.
        weight: λ of their distance.

    References:
        Boizard, El Haddad, Hudelot, Colombo: Towards Cross-Tokenizer Distillation: the Universal Logit Distillation
        Loss for LLMs, 2024, https://arxiv.org/abs/2402.12030.
    """
    return Objective({"labels": (1.0, HardLabelTerm()), "soft": (weight, UniversalLogitTerm(temperature))})

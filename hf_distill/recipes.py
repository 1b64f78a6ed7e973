"""Published methods, each a short function that returns an objective and reads like its paper."""

from hf_distill.functional import inter_class_pearson_distance, non_target_class_kl, target_class_kl
from hf_distill.objective import Objective
from hf_distill.schedules import Schedule
from hf_distill.terms import DecoupledTerm, HardLabelTerm, IntraClassTerm, SoftTargetTerm, UniversalLogitTerm


def hinton(temperature: float | Schedule = 2.0, alpha: float = 0.5) -> Objective:
    """Soft targets next to hard ones: L = α · L_labels + (1 − α) · T² · KL(teacher_T ‖ student_T).

    Args:
        temperature: T of the soft targets, above 0.
        alpha: weight of the labels, from 0 (teacher alone) to 1 (labels alone).

    References:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, https://arxiv.org/abs/1503.02531.
    """
    return Objective({"labels": (alpha, HardLabelTerm()), "soft": (1 - alpha, SoftTargetTerm(temperature))})


def dkd(temperature: float | Schedule = 4.0, alpha: float | Schedule = 1.0, beta: float | Schedule = 8.0) -> Objective:
    """Decoupled distillation: L = L_labels + α · TCKD + β · NCKD. A plain KL has α = 1 and β = 1 − p_teacher(label).

    Args:
        temperature: T of both parts, above 0.
        alpha: weight of the labelled class against the rest.
        beta: weight of the rest among themselves. The surer the teacher is, the more this may be.

    References:
        Zhao, Cui, Song, Qiu, Liang: Decoupled Knowledge Distillation, 2022, https://arxiv.org/abs/2203.08679.
    """
    return Objective(
        {
            "labels": (1.0, HardLabelTerm()),
            "target": (alpha, DecoupledTerm(temperature, target_class_kl)),
            "non_target": (beta, DecoupledTerm(temperature, non_target_class_kl)),
        }
    )


def dist(alpha: float = 1.0, beta: float = 1.0, gamma: float = 1.0, temperature: float | Schedule = 1.0) -> Objective:
    """Relations of probabilities in place of their values: L = α · L_labels + β · L_inter + γ · L_intra.

    Args:
        alpha: weight of the labels.
        beta: weight of the correlation over the classes of each row.
        gamma: weight of the correlation over the rows of each class, which only micro-batches of many rows can tell.
        temperature: T of both correlations, above 0.

    References:
        Huang, You, Wang, Qian, Xu: Knowledge Distillation from A Stronger Teacher, 2022,
        https://arxiv.org/abs/2205.10536.
    """
    return Objective(
        {
            "labels": (alpha, HardLabelTerm()),
            "inter": (beta, SoftTargetTerm(temperature, inter_class_pearson_distance)),
            "intra": (gamma, IntraClassTerm(temperature)),
        }
    )


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

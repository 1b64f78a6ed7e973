"""The divergences and their formulas in plain loops: what test_divergences.py runs over."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from hf_distill.functional import (
    forward_kl,
    inter_class_pearson_distance,
    jensen_shannon,
    logit_mse,
    reverse_kl,
    skewed_kl,
    skewed_reverse_kl,
    sorted_probability_distance,
    standardized_divergence,
    total_variation,
)


def loop_distribution(logits: list[float], temperature: float) -> list[float]:
    largest = max(logits)
    weights = [math.exp((logit - largest) / temperature) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def loop_kl(a: list[float], b: list[float]) -> float:
    return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True) if x > 0)


def loop_forward_kl(student: list[float], teacher: list[float], temperature: float) -> float:
    q, p = loop_distribution(student, temperature), loop_distribution(teacher, temperature)
    return temperature**2 * loop_kl(p, q)


def loop_reverse_kl(student: list[float], teacher: list[float], temperature: float) -> float:
    q, p = loop_distribution(student, temperature), loop_distribution(teacher, temperature)
    return temperature**2 * loop_kl(q, p)


def loop_jensen_shannon(student: list[float], teacher: list[float], temperature: float, beta: float = 0.5) -> float:
    q, p = loop_distribution(student, temperature), loop_distribution(teacher, temperature)
    m = [beta * x + (1 - beta) * y for x, y in zip(p, q, strict=True)]
    return temperature**2 * (beta * loop_kl(p, m) + (1 - beta) * loop_kl(q, m)) / (beta * (1 - beta))


def loop_skewed_kl(student: list[float], teacher: list[float], temperature: float, alpha: float = 0.1) -> float:
    q, p = loop_distribution(student, temperature), loop_distribution(teacher, temperature)
    return temperature**2 * loop_kl(p, [alpha * x + (1 - alpha) * y for x, y in zip(p, q, strict=True)])


def loop_skewed_reverse_kl(
    student: list[float], teacher: list[float], temperature: float, alpha: float = 0.1
) -> float:
    q, p = loop_distribution(student, temperature), loop_distribution(teacher, temperature)
    return temperature**2 * loop_kl(q, [(1 - alpha) * x + alpha * y for x, y in zip(p, q, strict=True)])


def loop_standardized(student: list[float], teacher: list[float], temperature: float) -> float:
    return loop_forward_kl(*(loop_z_scores(logits) for logits in (student, teacher)), temperature)


def loop_z_scores(logits: list[float]) -> list[float]:
    mean = sum(logits) / len(logits)
    deviation = math.sqrt(sum((logit - mean) ** 2 for logit in logits) / len(logits))
    return [(logit - mean) / deviation for logit in logits]


def loop_pearson(student: list[float], teacher: list[float], temperature: float) -> float:
    q, p = loop_distribution(student, temperature), loop_distribution(teacher, temperature)
    return 1 - sum(x * y for x, y in zip(loop_z_scores(p), loop_z_scores(q), strict=True)) / len(p)


def loop_total_variation(student: list[float], teacher: list[float], temperature: float) -> float:
    q, p = loop_distribution(student, temperature), loop_distribution(teacher, temperature)
    return temperature * 0.5 * sum(abs(x - y) for x, y in zip(p, q, strict=True))


def loop_sorted_probability_distance(student: list[float], teacher: list[float], temperature: float) -> float:
    q, p = (sorted(loop_distribution(logits, temperature), reverse=True) for logits in (student, teacher))
    ranks = range(max(len(p), len(q)))
    return temperature * sum(abs((p[i] if i < len(p) else 0) - (q[i] if i < len(q) else 0)) for i in ranks)


def loop_logit_mse(student: list[float], teacher: list[float], temperature: float) -> float:
    return sum((x - y) ** 2 for x, y in zip(student, teacher, strict=True)) / len(student)


CASES: dict[str, tuple[Callable[..., Tensor], Callable[..., float]]] = {
    "forward_kl": (forward_kl, loop_forward_kl),
    "reverse_kl": (reverse_kl, loop_reverse_kl),
    "jensen_shannon": (jensen_shannon, loop_jensen_shannon),
    "jensen_shannon_0.1": (partial(jensen_shannon, beta=0.1), partial(loop_jensen_shannon, beta=0.1)),
    "jensen_shannon_0.9": (partial(jensen_shannon, beta=0.9), partial(loop_jensen_shannon, beta=0.9)),
    "total_variation": (total_variation, loop_total_variation),
    "sorted_probability_distance": (sorted_probability_distance, loop_sorted_probability_distance),
    "logit_mse": (logit_mse, loop_logit_mse),
    "skewed_kl": (skewed_kl, loop_skewed_kl),
    "skewed_reverse_kl": (skewed_reverse_kl, loop_skewed_reverse_kl),
    "standardized_divergence": (standardized_divergence, loop_standardized),
    "inter_class_pearson_distance": (inter_class_pearson_distance, loop_pearson),
}
SMOOTH = [name for name in CASES if (name.endswith("_kl") and "skewed" not in name) or name.startswith("jensen")]
"""Those with the factor T² and the second-order term of `forward_kl` around equality."""


def random_logits(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return student.to(dtype), teacher.to(dtype)


def value_and_gradient(divergence: Callable[..., Tensor], student: Tensor, *args: Tensor, **kwargs: object) -> Tensor:
    student = student.clone().requires_grad_()
    values = divergence(student, *args, **kwargs)
    values.sum().backward()
    return values.detach(), student.grad

"""The functions of feature and relation knowledge, called alike: what test_feature_contract.py runs over."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hf_distill import functional


REAL = torch.tensor([[True, True, False, True, True], [False, True, True, True, False]])


@dataclass(frozen=True)
class Layout:
    """The axes that the mask counts, and how the features of what counts are picked, one call of the function each."""

    student: tuple[int, ...]
    teacher: tuple[int, ...]
    mask: Tensor
    parts: Callable[[Tensor, Tensor], list[Tensor]]
    """What is left of features, or of values, when only what counts is there."""
    poison: Callable[[Tensor, Tensor], None]
    """Overwrites what does not count with NaN."""


def picked(features: Tensor, mask: Tensor) -> list[Tensor]:
    return [features[mask]]


def tokens_of_heads(features: Tensor, mask: Tensor) -> list[Tensor]:
    return [row[:, real][None] for row, real in zip(features, mask, strict=True)]


def squares_of_heads(maps: Tensor, mask: Tensor) -> list[Tensor]:
    if maps.ndim == 3:  # values, one for each row of a map
        return tokens_of_heads(maps, mask)
    return [row[:, real][:, :, real][None] for row, real in zip(maps, mask, strict=True)]


def sites_of_rows(features: Tensor, mask: Tensor) -> list[Tensor]:
    if features.ndim == 1:  # values, one for each row
        return list(features[:, None])
    return [row[sites][None] for row, sites in zip(features, mask, strict=True)]


def everything(features: Tensor, mask: Tensor) -> list[Tensor]:
    return [features if features.ndim == 0 else features[mask]]


def poison_positions(features: Tensor, mask: Tensor) -> None:
    features[~mask] = torch.nan


def poison_tokens(vectors: Tensor, mask: Tensor) -> None:
    vectors.transpose(1, 2)[~mask] = torch.nan


def poison_squares(maps: Tensor, mask: Tensor) -> None:
    poison_tokens(maps, mask)
    poison_tokens(maps.transpose(2, 3), mask)


ROWS = torch.tensor([True, False, True, True, True, False, True])
POSITIONS = Layout((2, 5, 4), (2, 5, 4), REAL, picked, poison_positions)
RELATED_ROWS = Layout((7, 3), (7, 4), ROWS, picked, poison_positions)
CONTRASTED_ROWS = Layout((7, 4), (7, 4), ROWS, picked, poison_positions)
VECTORS = Layout((2, 2, 5, 6), (2, 4, 5, 6), REAL, tokens_of_heads, poison_tokens)
MAPS = Layout((2, 3, 5, 5), (2, 3, 5, 5), REAL, squares_of_heads, poison_squares)
SITES = Layout((2, 5, 7), (2, 5, 7), REAL, sites_of_rows, poison_positions)
SELECTIVE_SITES = Layout((2, 5, 6), (2, 5, 4), REAL, sites_of_rows, poison_positions)
SIMILARITY = Layout((2, 5, 2), (2, 5, 3), REAL, everything, poison_positions)


def gaussian_nll(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    log_variances = torch.tensor([0.5, -1.0, 0.0, 1.0], dtype=torch.float64).to(student.dtype)
    return functional.gaussian_nll(student, teacher, log_variances, mask=mask)


def fsp_distance(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    return functional.fsp_distance(
        (student[..., :3], student[..., 3:]), (teacher[..., :3], teacher[..., 3:]), mask=mask
    )


def attention_mse(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    return functional.attention_mse(student, teacher, token_mask=mask)


def attention_kl(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Of the attention that a model would compute from the scores, with no attention to padding."""
    probabilities = []
    for scores in (student, teacher):
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], -torch.inf).masked_fill(~mask[:, None, :, None], 0.0)
        probabilities.append(torch.softmax(scores.to(torch.promote_types(scores.dtype, torch.float32)), dim=-1))
    return functional.attention_kl(*probabilities, token_mask=mask)


def value_relation(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    return functional.self_attention_relation(student, teacher, num_relation_heads=3, token_mask=mask)


def query_key_relation(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    (student, student_keys), (teacher, teacher_keys) = student.chunk(2, dim=1), teacher.chunk(2, dim=1)
    return functional.self_attention_relation(
        student,
        teacher,
        num_relation_heads=2,
        token_mask=mask,
        student_keys=student_keys,
        teacher_keys=teacher_keys,
    )


CASES: dict[str, tuple[Callable[..., Tensor], Layout]] = {
    "hidden_mse": (functional.hidden_mse, POSITIONS),
    "normalized_squared_distance": (functional.normalized_squared_distance, POSITIONS),
    "cosine_distance": (functional.cosine_distance, POSITIONS),
    "gaussian_nll": (gaussian_nll, POSITIONS),
    "attention_mse": (attention_mse, MAPS),
    "attention_kl": (attention_kl, MAPS),
    "fsp_distance": (fsp_distance, SITES),
    "neuron_selectivity_mmd": (functional.neuron_selectivity_mmd, SELECTIVE_SITES),
    "self_attention_relation": (value_relation, VECTORS),
    "query_key_relation": (query_key_relation, VECTORS),
    "rkd_distance": (functional.rkd_distance, RELATED_ROWS),
    "rkd_angle": (functional.rkd_angle, RELATED_ROWS),
    "similarity_preserving": (functional.similarity_preserving, RELATED_ROWS),
    "correlation_congruence": (functional.correlation_congruence, RELATED_ROWS),
    "pkt": (functional.pkt, RELATED_ROWS),
    "info_nce": (partial(functional.info_nce, temperature=0.5), CONTRASTED_ROWS),
    "linear_cka": (functional.linear_cka, SIMILARITY),
}
DISTANCES = [name for name in CASES if name not in ("gaussian_nll", "info_nce", "linear_cka")]
"""Those that are 0 at equality and never negative."""


def inputs(layout: Layout, dtype: torch.dtype = torch.float64, poisoned: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = layout.student, layout.teacher
    student, teacher = (torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes)
    if poisoned:
        layout.poison(student, layout.mask)
        layout.poison(teacher, layout.mask)
    return student, teacher


def value_and_gradients(function: Callable[..., Tensor], *features: Tensor, **kwargs: object) -> tuple[Tensor, ...]:
    """The values, and the gradients of their sum to student and teacher."""
    leaves = [tensor.clone().requires_grad_() for tensor in features]
    values = function(*leaves, **kwargs)
    values.sum().backward()
    return values.detach(), *(leaf.grad for leaf in leaves)

"""Every public function of `hf_distill.functional`, called alike on sizes that are drawn: what test_properties.py runs
over."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hf_distill import functional
from tests.functional.feature_cases import attention_kl, attention_mse


@dataclass(frozen=True)
class Form:
    """What a function reads and returns, in letters: B rows, L tokens or sites, H heads, C classes or features."""

    inputs: str
    mask: str
    values: str
    num_classes: int = 1
    """The fewest."""

    def hidden(self, mask: Tensor) -> Tensor:
        """Where inputs do not count."""
        hidden = ~mask
        if self.inputs == "BHLL":
            return hidden[:, None, :, None] | hidden[:, None, None, :]
        if self.inputs == "BHLC":
            return hidden[:, None, :, None]
        return hidden if self.mask == self.inputs else hidden[..., None]

    def zeros(self, mask: Tensor) -> Tensor:
        """Where values are exactly 0, whatever the inputs are."""
        if self.values == self.mask:
            return ~mask
        if self.values == "BLK":
            return ~(mask[..., :1] & mask[..., 1:])
        if self.values == "BHL":
            return ~mask[:, None]
        return ~mask.any(dim=1) if self.values == "B" else ~mask.any()


POSITIONS = Form("BLC", "BL", "BL")
LABELLED = Form("BLC", "BL", "BL", num_classes=2)
CLASSES = Form("BLC", "BL", "C")
CANDIDATES = Form("BLC", "BLC", "BL")
PAIRS = Form("BLC", "BLC", "BLK", num_classes=2)
ROWS = Form("BC", "B", "B")
SITES = Form("BLC", "BL", "B")
LAYERS = Form("BLC", "BL", "B", num_classes=2)
VECTORS = Form("BHLC", "BL", "BHL")
MAPS = Form("BHLL", "BL", "BHL")
EVERYTHING = Form("BLC", "BL", "")


def fsp_distance(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    parts = ((each[..., :1], each[..., 1:]) for each in (student, teacher))
    return functional.fsp_distance(*parts, mask=mask)


def attention_of_all(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Every real token gets some attention: where it gets none, the divergence is infinite, as is documented."""
    return attention_kl(
        *(each.to(torch.float64).clamp(-20, 20).to(each.dtype) for each in (student, teacher)), mask=mask
    )


def gaussian_nll(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    log_variances = torch.linspace(-1.0, 1.0, student.shape[-1], dtype=student.dtype)
    return functional.gaussian_nll(student, teacher, log_variances, mask=mask)


def relation(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    num_heads = student.shape[1]
    return functional.self_attention_relation(student, teacher, num_relation_heads=num_heads, token_mask=mask)


def with_targets(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def labelled(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None, **options: float) -> Tensor:
        return function(student, teacher, torch.ones(student.shape[:-1], dtype=torch.int64), mask=mask, **options)

    return labelled


DIVERGENCES: dict[str, Callable[..., Tensor]] = {
    name: getattr(functional, name)
    for name in (
        "forward_kl",
        "reverse_kl",
        "jensen_shannon",
        "skewed_kl",
        "skewed_reverse_kl",
        "total_variation",
        "logit_mse",
        "sorted_probability_distance",
        "standardized_divergence",
        "inter_class_pearson_distance",
    )
}
"""Those with the signature of `forward_kl`, of one value a position."""

CASES: dict[str, tuple[Callable[..., Tensor], Form]] = {
    **{name: (divergence, POSITIONS) for name, divergence in DIVERGENCES.items()},
    "intra_class_pearson_distance": (functional.intra_class_pearson_distance, CLASSES),
    "target_class_kl": (with_targets(functional.target_class_kl), LABELLED),
    "non_target_class_kl": (with_targets(functional.non_target_class_kl), LABELLED),
    "listwise_kl": (functional.listwise_kl, CANDIDATES),
    "margin_mse": (functional.margin_mse, PAIRS),
    "hidden_mse": (functional.hidden_mse, POSITIONS),
    "normalized_squared_distance": (functional.normalized_squared_distance, POSITIONS),
    "cosine_distance": (functional.cosine_distance, POSITIONS),
    "gaussian_nll": (gaussian_nll, POSITIONS),
    "attention_mse": (attention_mse, MAPS),
    "attention_kl": (attention_of_all, MAPS),
    "fsp_distance": (fsp_distance, LAYERS),
    "neuron_selectivity_mmd": (functional.neuron_selectivity_mmd, SITES),
    "self_attention_relation": (relation, VECTORS),
    "rkd_distance": (functional.rkd_distance, ROWS),
    "rkd_angle": (functional.rkd_angle, ROWS),
    "similarity_preserving": (functional.similarity_preserving, ROWS),
    "correlation_congruence": (functional.correlation_congruence, ROWS),
    "pkt": (functional.pkt, ROWS),
    "info_nce": (partial(functional.info_nce, temperature=0.5), ROWS),
    "linear_cka": (functional.linear_cka, EVERYTHING),
}
NO_DISTANCES = ("gaussian_nll", "info_nce", "linear_cka")
"""Those that are not 0 at equality."""

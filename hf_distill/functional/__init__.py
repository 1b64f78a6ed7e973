"""Pure tensor functions, unreduced: what terms are made of."""

from hf_distill.functional.divergences import (
    forward_kl,
    jensen_shannon,
    logit_mse,
    reverse_kl,
    sorted_probability_distance,
    total_variation,
)


__all__ = ["forward_kl", "jensen_shannon", "logit_mse", "reverse_kl", "sorted_probability_distance", "total_variation"]

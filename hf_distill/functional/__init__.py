"""Pure tensor functions, unreduced: what terms are made of."""

from hf_distill.functional.attention_maps import attention_kl, attention_mse
from hf_distill.functional.contrastive import info_nce
from hf_distill.functional.divergences import forward_kl, jensen_shannon, logit_mse, reverse_kl, total_variation
from hf_distill.functional.feature_maps import fsp_distance, neuron_selectivity_mmd
from hf_distill.functional.features import cosine_distance, gaussian_nll, hidden_mse, normalized_squared_distance
from hf_distill.functional.layer_similarity import linear_cka
from hf_distill.functional.relations import (
    correlation_congruence,
    pkt,
    rkd_angle,
    rkd_distance,
    similarity_preserving,
)
from hf_distill.functional.self_attention_relations import self_attention_relation


__all__ = [
    "attention_kl",
    "attention_mse",
    "correlation_congruence",
    "cosine_distance",
    "forward_kl",
    "fsp_distance",
    "gaussian_nll",
    "hidden_mse",
    "info_nce",
    "jensen_shannon",
    "linear_cka",
    "logit_mse",
    "neuron_selectivity_mmd",
    "normalized_squared_distance",
    "pkt",
    "reverse_kl",
    "rkd_angle",
    "rkd_distance",
    "self_attention_relation",
    "similarity_preserving",
    "total_variation",
]

"""Pure tensor functions, unreduced: what terms are made of."""

from hf_distill.functional.attention_maps import attention_kl, attention_mse
from hf_distill.functional.boxes import generalized_iou
from hf_distill.functional.chunked_head import ChunkedLoss, LinearLogits, chunked_distillation_loss
from hf_distill.functional.contrastive import info_nce
from hf_distill.functional.correlations import inter_class_pearson_distance, intra_class_pearson_distance
from hf_distill.functional.decoupled import non_target_class_kl, target_class_kl
from hf_distill.functional.divergences import (
    forward_kl,
    jensen_shannon,
    logit_mse,
    reverse_kl,
    skewed_kl,
    skewed_reverse_kl,
    total_variation,
)
from hf_distill.functional.drawn_classes import drawn_logits
from hf_distill.functional.feature_maps import fsp_distance, neuron_selectivity_mmd
from hf_distill.functional.features import cosine_distance, gaussian_nll, hidden_mse, normalized_squared_distance
from hf_distill.functional.layer_similarity import linear_cka
from hf_distill.functional.rankings import listwise_kl, margin_mse
from hf_distill.functional.relations import (
    correlation_congruence,
    pkt,
    rkd_angle,
    rkd_distance,
    similarity_preserving,
)
from hf_distill.functional.self_attention_relations import self_attention_relation
from hf_distill.functional.sorted_probabilities import sorted_probability_distance
from hf_distill.functional.standardization import standardized_divergence
from hf_distill.functional.top_k import on_top_k, top_k_logits


__all__ = [
    "ChunkedLoss",
    "LinearLogits",
    "attention_kl",
    "attention_mse",
    "chunked_distillation_loss",
    "correlation_congruence",
    "cosine_distance",
    "drawn_logits",
    "forward_kl",
    "fsp_distance",
    "gaussian_nll",
    "generalized_iou",
    "hidden_mse",
    "info_nce",
    "inter_class_pearson_distance",
    "intra_class_pearson_distance",
    "jensen_shannon",
    "linear_cka",
    "listwise_kl",
    "logit_mse",
    "margin_mse",
    "neuron_selectivity_mmd",
    "non_target_class_kl",
    "normalized_squared_distance",
    "on_top_k",
    "pkt",
    "reverse_kl",
    "rkd_angle",
    "rkd_distance",
    "self_attention_relation",
    "similarity_preserving",
    "skewed_kl",
    "skewed_reverse_kl",
    "sorted_probability_distance",
    "standardized_divergence",
    "target_class_kl",
    "top_k_logits",
    "total_variation",
]

"""Pure tensor functions, unreduced: what terms are made of."""

from hf_distill.functional.boxes import generalized_iou
from hf_distill.functional.divergences import forward_kl, jensen_shannon, logit_mse, reverse_kl, total_variation


__all__ = ["forward_kl", "generalized_iou", "jensen_shannon", "logit_mse", "reverse_kl", "total_variation"]

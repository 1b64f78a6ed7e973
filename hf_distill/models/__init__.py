"""Models of our own, each registered with Transformers' Auto classes when it is imported."""

from hf_distill.models import encoder_lm as encoder_lm

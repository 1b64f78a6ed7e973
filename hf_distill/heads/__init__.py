"""What we know of each kind of model head: one small contract a kind."""

from hf_distill.heads.base import Head
from hf_distill.heads.classification import (
    MultiLabelHead,
    RegressionHead,
    SingleLabelHead,
    TokenClassificationHead,
)
from hf_distill.heads.language_models import CausalLMHead, MaskedLMHead
from hf_distill.heads.question_answering import QuestionAnsweringHead
from hf_distill.heads.resolve import head_of


__all__ = [
    "CausalLMHead",
    "Head",
    "MaskedLMHead",
    "MultiLabelHead",
    "QuestionAnsweringHead",
    "RegressionHead",
    "SingleLabelHead",
    "TokenClassificationHead",
    "head_of",
]

"""The encoder language model: the Transformer encoder of Vaswani et al. (2017), bidirectional or causal.

Importing this package registers it, so that the Auto classes know the model type `encoder_lm`.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTextEncoding,
    AutoModelForTokenClassification,
)

from hf_distill.models.encoder_lm.configuration_encoder_lm import EncoderLMConfig
from hf_distill.models.encoder_lm.modeling_encoder_lm import (
    EncoderLMForCausalLM,
    EncoderLMForMaskedLM,
    EncoderLMForQuestionAnswering,
    EncoderLMForSequenceClassification,
    EncoderLMForTokenClassification,
    EncoderLMModel,
    EncoderLMPreTrainedModel,
)


__all__ = [
    "EncoderLMConfig",
    "EncoderLMForCausalLM",
    "EncoderLMForMaskedLM",
    "EncoderLMForQuestionAnswering",
    "EncoderLMForSequenceClassification",
    "EncoderLMForTokenClassification",
    "EncoderLMModel",
    "EncoderLMPreTrainedModel",
]

AutoConfig.register("encoder_lm", EncoderLMConfig, exist_ok=True)
for _auto_class, _model_class in (
    (AutoModel, EncoderLMModel),
    (AutoModelForTextEncoding, EncoderLMModel),
    (AutoModelForPreTraining, EncoderLMForMaskedLM),
    (AutoModelForMaskedLM, EncoderLMForMaskedLM),
    (AutoModelForCausalLM, EncoderLMForCausalLM),
    (AutoModelForSequenceClassification, EncoderLMForSequenceClassification),
    (AutoModelForTokenClassification, EncoderLMForTokenClassification),
    (AutoModelForQuestionAnswering, EncoderLMForQuestionAnswering),
):
    _auto_class.register(EncoderLMConfig, _model_class, exist_ok=True)

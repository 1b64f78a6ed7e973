"""Which head a model has."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.trainer_utils import unwrap_peft_model

from hf_distill.errors import UnsupportedModelError
from hf_distill.heads.base import Head
from hf_distill.heads.classification import (
    MultiLabelHead,
    RegressionHead,
    SingleLabelHead,
    TokenClassificationHead,
)
from hf_distill.heads.language_models import CausalLMHead, MaskedLMHead
from hf_distill.heads.question_answering import QuestionAnsweringHead


HEADS: tuple[type[Head], ...] = (
    SingleLabelHead,
    TokenClassificationHead,
    QuestionAnsweringHead,
    MaskedLMHead,
    CausalLMHead,
)
"""The kinds of head, in the order in which they are tried (XLM's is masked and causal, and shifts no labels)."""


def head_of(model: nn.Module) -> Head:
    """The head of a model, from the Auto class that its class, or a parent of it, belongs to.

    Raises:
        UnsupportedModelError: if no head that we know fits.
    """
    base = unwrap_peft_model(model)
    names = {parent.__name__ for parent in type(base).__mro__}
    if isinstance(base, PreTrainedModel) and not base.config.is_encoder_decoder:
        for head in HEADS:
            if names & _class_names(head.auto_class):
                return _sequence_head(base.config) if head is SingleLabelHead else head()
    raise UnsupportedModelError(
        f"{type(base).__name__} has no head that hf_distill knows; these are known: "
        f"{', '.join(head.auto_class.__name__.removeprefix('AutoModelFor') for head in HEADS)}. Describe its outputs "
        "in a subclass of `hf_distill.heads.Head` and pass it as `head=`."
    )


def _sequence_head(config: Any) -> Head:
    """The problem of a sequence classifier, as Transformers infers it where the configuration leaves it open."""
    problem_type = config.problem_type or ("regression" if config.num_labels == 1 else "single_label_classification")
    if problem_type == "regression":
        return RegressionHead()
    return MultiLabelHead(config.num_labels) if problem_type == "multi_label_classification" else SingleLabelHead()


def _class_names(auto_class: Any) -> set[str]:
    """The names of every model class behind an Auto class, registered ones included, without importing them."""
    mapping = auto_class._model_mapping
    names: set[str] = {model.__name__ for model in mapping._extra_content.values()}
    for value in mapping._model_mapping.values():
        names.update((value,) if isinstance(value, str) else value)
    return names

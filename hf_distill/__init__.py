"""Make a big Transformer teach a small one, with the Trainer you know.

The public names, each imported when it is first used. Importing the package registers the encoder language model with
Transformers' Auto classes.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hf_distill import models as models  # registers the Auto classes
from hf_distill.version import __version__ as __version__


_PUBLIC = {
    # train
    "DistillationTrainer": "trainer",
    "DistillationTrainingArguments": "training_args",
    "DataCollatorForRowSeededMasking": "data_collator",
    # what to learn
    "Objective": "objective",
    "HardLabelTerm": "terms",
    "SoftTargetTerm": "terms",
    "Term": "terms",
    # how it moves over training
    "Constant": "schedules",
    "Cosine": "schedules",
    "Linear": "schedules",
    # from whom
    "OnlineTeacher": "teachers",
    "Teacher": "teachers",
    # how outputs are read
    "Head": "heads",
    "head_of": "heads",
    # a language model of our own
    "EncoderLMConfig": "models.encoder_lm",
    "EncoderLMModel": "models.encoder_lm",
    "EncoderLMForCausalLM": "models.encoder_lm",
    "EncoderLMForMaskedLM": "models.encoder_lm",
    "EncoderLMForQuestionAnswering": "models.encoder_lm",
    "EncoderLMForSequenceClassification": "models.encoder_lm",
    "EncoderLMForTokenClassification": "models.encoder_lm",
}
_ROOMS = ("errors", "functional", "heads", "recipes", "schedules", "teachers", "terms", "types")

__all__ = ["__version__", "models", *_PUBLIC, *_ROOMS]

if TYPE_CHECKING:
    from hf_distill import errors, functional, heads, recipes, schedules, teachers, terms, types
    from hf_distill.data_collator import DataCollatorForRowSeededMasking
    from hf_distill.heads import Head, head_of
    from hf_distill.models.encoder_lm import (
        EncoderLMConfig,
        EncoderLMForCausalLM,
        EncoderLMForMaskedLM,
        EncoderLMForQuestionAnswering,
        EncoderLMForSequenceClassification,
        EncoderLMForTokenClassification,
        EncoderLMModel,
    )
    from hf_distill.objective import Objective
    from hf_distill.schedules import Constant, Cosine, Linear
    from hf_distill.teachers import OnlineTeacher, Teacher
    from hf_distill.terms import HardLabelTerm, SoftTargetTerm, Term
    from hf_distill.trainer import DistillationTrainer
    from hf_distill.training_args import DistillationTrainingArguments


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"hf_distill.{_PUBLIC[name]}"), name)
    if name in _ROOMS:
        return import_module(f"hf_distill.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

"""Which head a model has."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForCausalLM,
    AutoModelForCTC,
    AutoModelForImageClassification,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    AutoModelForMultimodalLM,
    AutoModelForMultipleChoice,
    AutoModelForNextSentencePrediction,
    AutoModelForObjectDetection,
    AutoModelForQuestionAnswering,
    AutoModelForSemanticSegmentation,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForSpeechSeq2Seq,
    AutoModelForTextEncoding,
    AutoModelForTokenClassification,
    AutoModelForVideoClassification,
    AutoModelForZeroShotImageClassification,
    PreTrainedModel,
)
from transformers.trainer_utils import unwrap_peft_model

from hf_distill.errors import UnsupportedModelError
from hf_distill.heads.base import Head
from hf_distill.heads.classification import (
    MultiLabelHead,
    MultipleChoiceHead,
    NextSentenceHead,
    RegressionHead,
    SingleLabelHead,
    TokenClassificationHead,
)
from hf_distill.heads.ctc import CTCHead
from hf_distill.heads.detection import (
    FOCAL_MODELS,
    NO_OBJECT_MODELS,
    FocalObjectDetectionHead,
    ObjectDetectionHead,
)
from hf_distill.heads.dual_encoder import DualEncoderHead
from hf_distill.heads.embeddings import EmbeddingHead
from hf_distill.heads.frames import frame_count
from hf_distill.heads.language_models import CausalLMHead, MaskedLMHead
from hf_distill.heads.question_answering import QuestionAnsweringHead
from hf_distill.heads.segmentation import SemanticSegmentationHead
from hf_distill.heads.seq2seq import Seq2SeqHead, SpeechSeq2SeqHead


SOFT_LABEL_MODELS = ("deberta", "deberta-v2")
"""Model types that take labels of floats for a distribution over the classes, where Transformers at large takes them
for a yes or no to each."""

DUAL_ENCODERS = ("ClapModel", "VisionTextDualEncoderModel")
"""Dual encoders that are behind no other Auto class than `AutoModel`."""

UNVERIFIED_WRITERS = (
    *("blip", "blip-2", "instructblip", "instructblipvideo"),
    *("dia", "kyutai_speech_to_text", "musicgen_decoder", "musicgen_melody_decoder"),
)
"""Model types that write with a loss of their own, smoothed or cut to the end of the sequence, or write several codes
at each position."""

REFUSALS = {
    "ForPreTraining": "its loss of pre-training averages over units of its own",
    "ForXVector": "its loss has a margin between speakers, whose unit was not verified",
    "ObjectDetection": "its classes are texts of the batch",
    "ForSegmentation": "its loss first matches masks with labels",
    "InstanceSegmentation": "its loss first matches masks with labels",
    "UniversalSegmentation": "its loss first matches masks with labels",
}
"""Endings of class names, and why such a model has no head here."""


UNSHIFTED_DECODERS = (
    *("bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "cpmant", "marian", "mbart", "mvp", "pegasus"),
    *("plbart", "prophetnet", "trocr", "whisper", "xlnet"),
)
"""Model types whose causal language model compares position t with label t in its own loss."""


def head_of(model: nn.Module) -> Head:
    """The head of a model, from the Auto class that its class, or a parent of it, belongs to.

    Raises:
        UnsupportedModelError: if no head that we know fits.
    """
    base = unwrap_peft_model(model)
    names = {parent.__name__ for parent in type(base).__mro__}
    if isinstance(base, PreTrainedModel):
        for auto_class, make_head in HEADS:
            if names & class_names(auto_class) and base.config.is_encoder_decoder in _DECODERS.get(auto_class, _ANY):
                return make_head(base, auto_class)
    name = type(base).__name__
    raise _unsupported(name, next((why for ending, why in REFUSALS.items() if name.endswith(ending)), ""))


def head_of_checkpoint(name_or_path: str | Path) -> Head:
    """The head of the model that a checkpoint is of, from its configuration alone.

    Raises:
        UnsupportedModelError: if no head that we know fits.
    """
    config = AutoConfig.from_pretrained(name_or_path)
    architectures = set(config.architectures or ())
    for auto_class, _ in HEADS:
        if architectures & class_names(auto_class):
            with torch.device("meta"):
                return head_of(auto_class.from_config(config))
    raise _unsupported(str(name_or_path), f"its configuration names {sorted(architectures)}")


def _unsupported(name: str, reason: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{name} has no head that hf_distill knows{reason and f' ({reason})'}; these are known: "
        f"{', '.join(auto_class.__name__.removeprefix('AutoModelFor') for auto_class, _ in HEADS)}. Describe its "
        "outputs in a subclass of `hf_distill.heads.Head` and pass it as `head=`."
    )


def _classifier(model: PreTrainedModel, auto_class: Any) -> Head:
    """The problem of a classifier, as Transformers infers it where the configuration leaves it open."""
    config: Any = model.config
    problem_type = config.problem_type or ("regression" if config.num_labels == 1 else "single_label_classification")
    if problem_type == "regression":
        return RegressionHead(auto_class)
    if problem_type == "multi_label_classification":
        return MultiLabelHead(config.num_labels, auto_class)
    is_open = config.problem_type is None and config.model_type not in SOFT_LABEL_MODELS
    return SingleLabelHead(auto_class, open_classes=config.num_labels if is_open else None)


def _segmenter(model: PreTrainedModel, auto_class: Any) -> Head:
    config: Any = model.config
    if config.num_labels == 1:
        raise UnsupportedModelError(
            f"{type(model).__name__} has num_labels=1, so its own loss averages over all pixels, also those that "
            "do not count. Give student and teacher two classes."
        )
    names = ("semantic_loss_ignore_index", "loss_ignore_index")  # the latter is UperNet's
    return SemanticSegmentationHead(next((getattr(config, name) for name in names if hasattr(config, name)), 255))


def _detector(model: PreTrainedModel, auto_class: Any) -> Head:
    config: Any = model.config
    if config.model_type in NO_OBJECT_MODELS:
        return ObjectDetectionHead()
    if config.model_type in FOCAL_MODELS:
        return FocalObjectDetectionHead(config.num_queries, getattr(config, "group_detr", 1))
    raise UnsupportedModelError(
        f"{type(model).__name__} has the model_type {config.model_type!r}, and these detectors are known: "
        f"{', '.join(NO_OBJECT_MODELS + FOCAL_MODELS)}. If its outputs are those of DETR or of Deformable DETR, pass "
        "`head=ObjectDetectionHead()` or `head=FocalObjectDetectionHead()`; else describe them in a subclass."
    )


def _transcriber(model: PreTrainedModel, auto_class: Any) -> Head:
    config: Any = model.config
    count = frame_count(model)
    if count is None:
        raise _unsupported(type(model).__name__, "it does not say how many frames it makes of a sound")
    return CTCHead(count, config.ctc_loss_reduction)


def _writer(model: PreTrainedModel, auto_class: Any) -> Head:
    """A model that reads, looks or listens, and writes: by its decoder alone, or from what an encoder has made."""
    if "labels" not in inspect.signature(model.forward).parameters:
        raise _unsupported(type(model).__name__, "it takes no labels, so it does not say what its outputs predict")
    if not model.config.is_encoder_decoder:
        return _decoder(model, auto_class)
    _check_verified(model)
    return SpeechSeq2SeqHead() if auto_class is AutoModelForSpeechSeq2Seq else Seq2SeqHead(auto_class)


def _decoder(model: PreTrainedModel, auto_class: Any) -> Head:
    _check_verified(model)
    return CausalLMHead(model.config.model_type not in UNSHIFTED_DECODERS, auto_class)


def _check_verified(model: PreTrainedModel) -> None:
    if model.config.model_type in UNVERIFIED_WRITERS:
        raise _unsupported(type(model).__name__, "what its own loss averages over was not verified")


def _dual_encoder(model: PreTrainedModel, auto_class: Any) -> Head:
    """A model that compares every text with every image. The bias of a sigmoid would have no effect in a softmax."""
    if not _takes_return_loss(model) or model.main_input_name != "input_ids":
        raise _unsupported(type(model).__name__, "it does not give the similarity of every text to every image")
    return DualEncoderHead("sigmoid" if hasattr(model, "logit_bias") else "softmax")


def _bare_model(model: PreTrainedModel, auto_class: Any) -> Head:
    """What a model without a head on top says: pairs if it has two encoders, else one vector."""
    listed = class_names(auto_class)
    if any(re.search("For[A-Z]", each.__name__) and each.__name__ in listed for each in type(model).__mro__):
        raise _unsupported(type(model).__name__, "it has a head on top, whose outputs are of its own kind")
    if _takes_return_loss(model):
        if any(parent.__name__ in DUAL_ENCODERS for parent in type(model).__mro__):
            return _dual_encoder(model, auto_class)
        raise _unsupported(type(model).__name__, "it compares pairs in a way of its own")
    is_causal = type(model.config) in AutoModelForCausalLM._model_mapping
    is_causal &= type(model.config) not in AutoModelForMaskedLM._model_mapping
    return EmbeddingHead("last" if is_causal else "mean", frame_count=frame_count(model))


def _takes_return_loss(model: PreTrainedModel) -> bool:
    return "return_loss" in inspect.signature(model.forward).parameters


HEADS: tuple[tuple[Any, Callable[[PreTrainedModel, Any], Head]], ...] = (
    (AutoModelForSequenceClassification, _classifier),
    (AutoModelForImageClassification, _classifier),
    (AutoModelForAudioClassification, _classifier),
    (AutoModelForVideoClassification, _classifier),
    (AutoModelForTokenClassification, lambda model, auto_class: TokenClassificationHead()),
    (AutoModelForQuestionAnswering, lambda model, auto_class: QuestionAnsweringHead()),
    (AutoModelForMultipleChoice, lambda model, auto_class: MultipleChoiceHead()),
    (AutoModelForNextSentencePrediction, lambda model, auto_class: NextSentenceHead()),
    (AutoModelForSemanticSegmentation, _segmenter),
    (AutoModelForObjectDetection, _detector),
    (AutoModelForSeq2SeqLM, _writer),
    (AutoModelForSpeechSeq2Seq, _writer),
    (AutoModelForMaskedLM, lambda model, auto_class: MaskedLMHead()),
    (AutoModelForCausalLM, _decoder),
    (AutoModelForImageTextToText, _writer),
    (AutoModelForMultimodalLM, _writer),
    (AutoModelForCTC, _transcriber),
    (AutoModelForZeroShotImageClassification, _dual_encoder),
    (AutoModelForTextEncoding, _bare_model),
    (AutoModel, _bare_model),
)
"""The Auto classes in the order in which they are tried: BART is sequence to sequence before it is a masked model, and
XLM a masked one before a causal one, since it shifts no labels. Models without a head come last."""

_ANY = (True, False)
_DECODERS: dict[Any, tuple[bool, ...]] = {
    AutoModelForSpeechSeq2Seq: (True,),
    AutoModelForMaskedLM: (False,),
    AutoModelForCausalLM: (False,),
    AutoModel: (False,),
}
"""Whether a model behind the Auto class must be an encoder–decoder. Models that speak are listed as speech to text
too, with a causal decoder."""


def class_names(auto_class: Any) -> set[str]:
    """The names of every model class behind an Auto class, registered ones included, without importing them."""
    mapping = auto_class._model_mapping
    names: set[str] = {model.__name__ for model in mapping._extra_content.values()}
    for value in mapping._model_mapping.values():
        names.update((value,) if isinstance(value, str) else value)
    return names

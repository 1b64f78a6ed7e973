"""The tasks that a whole job can be made of: which columns are read, how, and how answers are scored."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import transformers
from datasets import Dataset

from hf_distill.errors import ConfigurationError
from hf_distill.heads.resolve import class_names
from hf_distill.processing.answers import answer_scores, answered_questions
from hf_distill.processing.blocks import block_collator, labelled_blocks, masking_collator, text_blocks
from hf_distill.processing.media import ImageCollator, SoundCollator, classified_media
from hf_distill.processing.reading import Reading
from hf_distill.processing.scores import Scores, class_scores
from hf_distill.processing.texts import (
    classified_texts,
    padding_collator,
    tag_collator,
    tagged_words,
    text_pairs_to_write,
    writing_collator,
)


CLASS_COLUMNS = ("label", "labels", "class", "target")


@dataclass(frozen=True)
class Task:
    """One kind of job."""

    auto_class: str
    """The Auto class that loads its models."""
    auto_processor: str
    """The Auto class that loads what reads for them."""
    inputs: Sequence[Mapping[str, str]]
    """Role → column, in combinations that data sets of the task use."""
    labels: Sequence[str]
    """What data sets of the task call the column of labels."""
    process: Callable[[Dataset, Reading], Dataset]
    collator: Callable[[Reading], Any]
    scores: Callable[[Dataset, Reading], Scores] | None = None
    """None for language models, whose score is the exact perplexity that the Trainer gives."""
    labels_in_lists: Any = None
    """What a list in the column of labels is; None where labels are no classes."""
    max_length: int = 128
    """Tokens of a row, unless the user or the model says otherwise."""
    reads_raw: bool = False
    """Whether rows become tensors in the collator alone, so that no column may be removed before."""


TEXT_INPUTS = (
    {"text": "sentence1", "text_pair": "sentence2"},
    {"text": "premise", "text_pair": "hypothesis"},
    {"text": "question1", "text_pair": "question2"},
    {"text": "question", "text_pair": "sentence"},
    {"text": "text", "text_pair": "text_pair"},
    *({"text": name} for name in ("text", "sentence", "content", "review")),
)

TASKS: dict[str, Task] = {
    "text-classification": Task(
        "AutoModelForSequenceClassification",
        "AutoTokenizer",
        TEXT_INPUTS,
        CLASS_COLUMNS,
        classified_texts,
        padding_collator,
        class_scores,
        "classes of rows",
    ),
    "token-classification": Task(
        "AutoModelForTokenClassification",
        "AutoTokenizer",
        ({"text": "tokens"}, {"text": "words"}),
        ("ner_tags", "pos_tags", "tags", "upos", "labels"),
        tagged_words,
        tag_collator,
        class_scores,
        "classes of tokens",
    ),
    "question-answering": Task(
        "AutoModelForQuestionAnswering",
        "AutoTokenizer",
        ({"text": "question", "text_pair": "context"},),
        ("answers",),
        answered_questions,
        padding_collator,
        answer_scores,
        max_length=384,
    ),
    "image-classification": Task(
        "AutoModelForImageClassification",
        "AutoImageProcessor",
        ({"image": "image"}, {"image": "img"}),
        (*CLASS_COLUMNS, "fine_label"),
        classified_media,
        ImageCollator,
        class_scores,
        "classes of rows",
        reads_raw=True,
    ),
    "audio-classification": Task(
        "AutoModelForAudioClassification",
        "AutoFeatureExtractor",
        ({"audio": "audio"}, {"audio": "speech"}),
        CLASS_COLUMNS,
        classified_media,
        SoundCollator,
        class_scores,
        "classes of rows",
        reads_raw=True,
    ),
    "text2text-generation": Task(
        "AutoModelForSeq2SeqLM",
        "AutoTokenizer",
        tuple({"text": name} for name in ("document", "article", "dialogue", "source", "input", "text")),
        ("summary", "highlights", "target", "output", "labels"),
        text_pairs_to_write,
        writing_collator,
    ),
    "fill-mask": Task("AutoModelForMaskedLM", "AutoTokenizer", TEXT_INPUTS[-4:], (), text_blocks, masking_collator),
    "text-generation": Task(
        "AutoModelForCausalLM", "AutoTokenizer", TEXT_INPUTS[-4:], (), labelled_blocks, block_collator
    ),
}
"""By the names that Transformers' pipelines give them, in the order in which a model's class is looked for: BART is
sequence to sequence before it is a masked model."""


def task_of(config: Any) -> str:
    """The task of the model class that a configuration names.

    Raises:
        ConfigurationError: if it names none, or one of another task.
    """
    architectures = set(config.architectures or ())
    for name, task in TASKS.items():
        if architectures & class_names(getattr(transformers, task.auto_class)):
            return name
    raise ConfigurationError(
        f"the configuration of {config.name_or_path or config.model_type!r} names the model classes "
        f"{', '.join(sorted(architectures)) or 'none'}, which tells no task. Name one by `task`: {', '.join(TASKS)}. "
        "Models with other heads learn by `DistillationTrainer`, in Python."
    )

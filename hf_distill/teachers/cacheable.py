"""Whose answers can be kept, and of which rows."""

import os
from copy import copy
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from hf_distill.errors import ConfigurationError, UnsupportedModelError, VocabularyMismatchError
from hf_distill.heads import CTCHead, Head, ObjectDetectionHead, head_of, head_of_checkpoint
from hf_distill.heads.alignment import Alignment
from hf_distill.teachers.base import Teacher
from hf_distill.teachers.column import ColumnTeacher
from hf_distill.teachers.kept_layers import Layers
from hf_distill.teachers.online import OnlineTeacher
from hf_distill.teachers.own_tokenizer import different_ids, own_tokenizer, tokens_by_id
from hf_distill.teachers.served import ServedTeacher


def check_cacheable(head: Head, top_k: int | None = None) -> None:
    """What a head reads can be kept row by row.

    Raises:
        UnsupportedModelError: if it cannot, or not the likeliest classes alone.
    """
    name = type(head).__name__
    if head.compares_rows:
        raise UnsupportedModelError(
            f"answers read by a {name} compare the rows of a micro-batch with each other, so they belong to no row "
            "and cannot be cached. Pass the model as `teacher=`, or compare each row's own vector with "
            "`head=EmbeddingHead()`."
        )
    if isinstance(head, ObjectDetectionHead):
        raise UnsupportedModelError(
            f"answers read by a {name} are sets of boxes beside their classes, which are not cached. Pass the model "
            "as `teacher=`."
        )
    if top_k is not None and not head.is_language_model:
        raise UnsupportedModelError(
            f"`top_k={top_k}` keeps the likeliest tokens of a vocabulary, and a {name} has none. Leave `top_k` out: "
            "all classes are few."
        )


def askable(teacher: Any, head: Head | None) -> OnlineTeacher | ServedTeacher:
    """The teacher as it answers by itself, whatever classes a student has had it answer on.

    Raises:
        UnsupportedModelError: if it is several, or none that can be asked.
    """
    if isinstance(teacher, (OnlineTeacher, ServedTeacher)):
        asked = copy(teacher)
        asked.alignment = Alignment()
        return asked
    if isinstance(teacher, (str, Path)):
        online = OnlineTeacher.from_pretrained(teacher, head or head_of_checkpoint(teacher))
        if torch.cuda.is_available() and not online.is_spread:
            online.model.to(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")  # type: ignore[arg-type]
        return online
    if isinstance(teacher, ColumnTeacher):
        raise UnsupportedModelError(
            f"the answers of a `ColumnTeacher` stand in the data set already, in {teacher.column!r}. Pass it as "
            "`teacher=` to the trainer."
        )
    if isinstance(teacher, (Teacher, list, tuple)):
        raise UnsupportedModelError(
            f"`teacher` is a {type(teacher).__name__}, which is brought onto the student's classes when there is one. "
            "Cache each of its members, and pass the list of their paths as `teacher=`, or an `EnsembleTeacher` of it."
        )
    return OnlineTeacher(teacher, head or head_of(teacher))


def check_drawn(teacher: OnlineTeacher | ServedTeacher, top_k: int | None, drawn_at: float | None) -> None:
    """Raises:
    ConfigurationError: if nothing can be drawn.
    """
    if drawn_at is not None and (top_k is None or isinstance(teacher, ServedTeacher)):
        raise ConfigurationError(
            f"`drawn_at={drawn_at}` draws as many tokens as `top_k` says of a model's answer. `top_k` is {top_k} "
            f"and the teacher a {type(teacher).__name__}. Pass a model and `top_k`, or leave `drawn_at` out."
        )


def served_top_k(teacher: ServedTeacher, top_k: int | None, layers: Layers | None) -> int:
    """How many tokens of a server's answer are kept.

    Raises:
        UnsupportedModelError, ConfigurationError: if more is asked for than it tells.
    """
    if layers is not None:
        raise UnsupportedModelError(
            f"`layers={layers}` keeps hidden states, and the server {teacher.server.url} tells none. Leave it out."
        )
    if top_k not in (None, teacher.top_k):
        raise ConfigurationError(
            f"`top_k` is {top_k}, and the server {teacher.server.url} is asked for {teacher.top_k} tokens of each "
            "position. Leave it out, and give it to the `ServedTeacher`."
        )
    return teacher.top_k


def check_reads_rows(teacher: OnlineTeacher, tokenizer: PreTrainedTokenizerBase) -> None:
    """The teacher reads the text that its rows were made of.

    Args:
        tokenizer: what made the rows.

    Raises:
        VocabularyMismatchError: if its own tokenizer, where that is known, has another token under some number.
    """
    own = None if isinstance(teacher.head, CTCHead) else own_tokenizer(teacher, tokenizer)
    if own is None or not (different := different_ids(tokenizer, own)):
        return
    ours, theirs = tokens_by_id(tokenizer), tokens_by_id(own)
    raise VocabularyMismatchError(
        f"the rows are in the {len(ours)} tokens of `processing_class`, and the teacher's own tokenizer has "
        f"{len(theirs)}; {len(different)} token ids stand for different strings (first: id {different[0]} is "
        f"{ours[different[0]]!r} in the rows and {theirs.get(different[0])!r} for the teacher), so the teacher would "
        "read another text. Tokenize the rows by the teacher's tokenizer, and pass that as `processing_class=`; a "
        "student with another one reads such a cache beside it with `teacher_processing_class=`."
    )

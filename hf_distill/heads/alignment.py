"""What is compared is first made comparable: which of the teacher's classes is which of the student's."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

from hf_distill.errors import ClassMismatchError, VocabularyMismatchError
from hf_distill.types import Signals


logger = logging.get_logger(__name__)

MAX_PADDING_ROWS = 1024
"""More rows than any published checkpoint pads its vocabulary with (Phi-1.5: 905)."""


class Alignment:
    """Student and teacher choose between the same classes in the same order: nothing is done.

    Its children bring the class scores of both onto the student's classes. A class that one of the two lacks is minus
    infinity in both, so that it takes no probability from the others in either.
    """

    def __call__(self, student: Signals, teacher: Signals) -> tuple[Signals, Signals]:
        """Both signals, their logits of one shape and their classes in one order."""
        return student, teacher


class ClassAlignment(Alignment):
    """The teacher has the student's classes in another order, or more besides.

    The softmax over the classes that are left renormalises the teacher's distribution over the student's classes.

    Args:
        teacher_classes: for each class of the student, the teacher's index of it.
        class_axis: the axis of the logits that counts classes.

    Example:

        >>> teacher = Signals(torch.tensor([[0.0, 1.0, 2.0]]))
        >>> student = Signals(torch.zeros(1, 2))
        >>> ClassAlignment([2, 0])(student, teacher)[1].logits
        tensor([[2., 0.]])
    """

    def __init__(self, teacher_classes: Sequence[int], class_axis: int = -1) -> None:
        self.teacher_classes = tuple(teacher_classes)
        self.class_axis = class_axis
        self._index = torch.tensor(self.teacher_classes)

    def __call__(self, student: Signals, teacher: Signals) -> tuple[Signals, Signals]:
        self._index = self._index.to(teacher.logits.device)  # copies once
        return student, replace(teacher, logits=teacher.logits.index_select(self.class_axis, self._index))


class VocabularyAlignment(Alignment):
    """One vocabulary has more rows than the other, beyond the tokens that both know.

    Args:
        num_tokens: the rows that stand for tokens. All others are minus infinity in both.
        student_size: the rows of the student, which both have afterwards.

    Example:

        >>> student, teacher = Signals(torch.zeros(3)), Signals(torch.zeros(2))
        >>> [signals.logits.tolist() for signals in VocabularyAlignment(2, student_size=3)(student, teacher)]
        [[0.0, 0.0, -inf], [0.0, 0.0, -inf]]
    """

    def __init__(self, num_tokens: int, student_size: int) -> None:
        self.num_tokens = num_tokens
        self.num_padding = student_size - num_tokens

    def __call__(self, student: Signals, teacher: Signals) -> tuple[Signals, Signals]:
        return tuple(replace(signals, logits=self._tokens_alone(signals.logits)) for signals in (student, teacher))  # type: ignore[return-value]

    def _tokens_alone(self, logits: Tensor) -> Tensor:
        tokens = logits[..., : self.num_tokens]
        return torch.nn.functional.pad(tokens, (0, self.num_padding), value=-torch.inf) if self.num_padding else tokens


def class_alignment(student: Any, teacher: Any, class_axis: int = -1) -> Alignment:
    """The student's classes among the teacher's, by their names.

    Names are compared without case and surrounding blanks. Where one of the two has no names but the placeholders of
    Transformers (`LABEL_0` …), classes are taken to be in the same order, if there are equally many.

    Args:
        student, teacher: configurations.
        class_axis: the axis of the logits that counts classes.

    Raises:
        ClassMismatchError: if the teacher lacks a class of the student, or a side without names has another number of
            classes, or a name of the student stands for two that are not in the same order.
    """
    student_names, teacher_names = (_class_names(config) for config in (student, teacher))
    if not student_names or not teacher_names:
        check_number_of_classes(student, teacher)
        if student_names or teacher_names:
            named, unnamed = ("student", "teacher") if student_names else ("teacher", "student")
            logger.warning_once(
                f"The {unnamed}'s classes have no names, so they are taken to be in the {named}'s order: "
                f"{student_names or teacher_names}. Give the {unnamed} the same `id2label` if that is so."
            )
        return Alignment()
    known = [_folded(names) for names in (student_names, teacher_names)]
    if any(len(set(names)) < len(names) for names in known):
        known = [student_names, teacher_names]
    ours, theirs = known
    if ours == theirs:
        return Alignment()
    missing = [student_names[index] for index, name in enumerate(ours) if name not in theirs]
    if missing:
        raise ClassMismatchError(
            f"the student has the classes {student_names} and the teacher {teacher_names}, which lacks {missing}, so "
            "it cannot say how likely they are. Take a teacher that knows all classes of the student, leave those "
            "classes out of the student, or correct `id2label` if they are the same under another name."
        )
    repeated = [name for name in ours if max(ours.count(name), theirs.count(name)) > 1]
    if repeated:
        raise ClassMismatchError(
            f"the student has the classes {student_names} and the teacher {teacher_names}, where {repeated[0]!r} "
            "stands for two classes. Give each class a name of its own in `id2label`."
        )
    return ClassAlignment([theirs.index(name) for name in ours], class_axis)


def check_number_of_classes(student: Any, teacher: Any) -> None:
    """Both configurations have equally many classes.

    Raises:
        ClassMismatchError: if they have not.
    """
    if student.num_labels != teacher.num_labels:
        raise ClassMismatchError(
            f"the student has {student.num_labels} classes and the teacher {teacher.num_labels}. Give the student "
            f"num_labels={teacher.num_labels}, fine-tune a teacher on the student's classes, or, if the student is to "
            "learn some of the teacher's classes, name the classes of both in `id2label`."
        )


def vocabulary_alignment(
    student_size: int, teacher_size: int, num_student_tokens: int | None, num_teacher_tokens: int | None
) -> Alignment:
    """The tokens that student and teacher share, where their numbers of rows differ.

    Args:
        student_size, teacher_size: `vocab_size` of both.
        num_student_tokens, num_teacher_tokens: how many of the rows stand for tokens, from the tokenizers; None where
            there is none at hand. Two tokenizers have been compared before, token by token.

    Raises:
        VocabularyMismatchError: if a row that only one of the two has stands for a token, or nothing says that it
            does not.
    """
    if student_size == teacher_size:
        return Alignment()
    what = f"the student has vocab_size {student_size} and the teacher {teacher_size}"
    num_tokens = num_student_tokens if num_student_tokens is not None else num_teacher_tokens
    smaller, larger = sorted((student_size, teacher_size))
    if num_tokens is None:
        raise VocabularyMismatchError(
            f"{what}, and without a tokenizer nothing says whether the further rows are padding. Pass the tokenizer "
            "as `processing_class=`, or give the student the teacher's tokenizer and vocab_size."
        )
    if num_tokens > smaller:
        raise VocabularyMismatchError(
            f"{what}, and the tokenizer knows {num_tokens} tokens, so the further rows are tokens and no padding. "
            "Give the student the teacher's tokenizer and vocab_size, or choose another teacher."
        )
    if num_student_tokens is None or num_teacher_tokens is None:
        if num_tokens != smaller or larger - smaller >= MAX_PADDING_ROWS:
            owner = "student" if num_teacher_tokens is None else "teacher"
            raise VocabularyMismatchError(
                f"{what}, and the {owner}'s tokenizer knows {num_tokens} tokens, which does not show that both have "
                "the same tokens. Save the tokenizer into the folder of the teacher, and pass it as "
                "`processing_class=` too, so that the two can be compared."
            )
        logger.warning_once(
            f"{what.capitalize()}. Only one tokenizer is at hand, with {num_tokens} tokens, so it is taken to be that "
            f"of both, and the {larger - smaller} further rows to be padding. Save the tokenizer into the folder of "
            "the teacher, and pass it as `processing_class=` too, to have it compared."
        )
    return VocabularyAlignment(num_tokens, student_size)


def _class_names(config: Any) -> list[str]:
    """The names of all classes, in order; empty if they are the placeholders that Transformers makes, or unordered."""
    names = config.id2label or {}
    if set(names) != set(range(len(names))) or all(name == f"LABEL_{index}" for index, name in names.items()):
        return []
    return [str(names[index]) for index in range(len(names))]


def _folded(names: list[str]) -> list[str]:
    return [name.strip().casefold() for name in names]

"""What is compared is first made comparable: which of the teacher's classes is which of the student's."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

from hf_distill.errors import ClassMismatchError, LengthMismatchError, VocabularyMismatchError
from hf_distill.types import Positions, Signals, TopKLogits


logger = logging.get_logger(__name__)

MAX_PADDING_ROWS = 1024
"""More rows than any published checkpoint pads its vocabulary with (Phi-1.5: 905)."""

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""What Transformers calls them. No transcript needs one, so a teacher may lack them."""
BLANK = ""
"""The empty string, which no tokenizer has for a token."""


class Alignment:
    """Student and teacher choose between the same classes in the same order: nothing is done.

    Its children bring the class scores of both onto the student's classes. A class that one of the two lacks is minus
    infinity in both, so that it takes no probability from the others in either.
    """

    same_classes = True
    """Whether a class means the same in both afterwards."""

    def __call__(self, student: Signals, teacher: Signals) -> tuple[Signals, Signals]:
        """Both signals, their logits of one shape and their classes in one order."""
        self.check(student, teacher)
        return self.of_student(student), self.of_teacher(teacher)

    def check(self, student: Signals, teacher: Signals) -> None:
        """Whether both lie on one number of positions, where configurations do not tell."""

    def of_student(self, signals: Signals) -> Signals:
        """Signals on the student's classes, without those that the teacher lacks."""
        return signals

    def of_teacher(self, signals: Signals) -> Signals:
        """The teacher's signals, brought onto the student's classes."""
        return signals


def check_positions(student: Signals, teacher: Signals | None, where: Positions) -> None:
    """Both models give class scores for the positions of the batch, no more and no fewer.

    Raises:
        LengthMismatchError: if one does not, with both shapes.
    """
    wanted = where.mask.shape
    for who, signals in (("student", student), ("teacher", teacher)):
        if signals is None or 0 in signals.logits.shape:  # none are built where the head is held back
            continue
        if signals.logits.shape[: len(wanted)] != wanted:
            raise LengthMismatchError(
                f"the {who}'s outputs have the shape {tuple(signals.logits.shape)}, and the batch has positions of "
                f"the shape {tuple(wanted)}, so it is not known which output belongs to which position. Where a model "
                "adds positions of its own (soft prompts, patches of an image), give the batch an entry for each, or "
                "pass a `head=` whose `logits` leaves them out."
            )


class UnalignedClasses(Alignment):
    """Student and teacher choose between tokens of two vocabularies. Nothing is done, and nothing that compares them
    token by token can be asked."""

    same_classes = False


class ClassAlignment(Alignment):
    """The teacher has the student's classes in another order, or more besides.

    The softmax over the classes that are left renormalises the teacher's distribution over the student's classes.

    Args:
        teacher_classes: for each class of the student, the teacher's index of it.
        class_axis: the axis of the logits that counts classes.

    Example:

        >>> teacher = Signals(torch.tensor([[0.0, 1.0, 2.0]]))
        >>> ClassAlignment([2, 0]).of_teacher(teacher).logits
        tensor([[2., 0.]])
    """

    def __init__(self, teacher_classes: Sequence[int], class_axis: int = -1) -> None:
        self.teacher_classes = tuple(teacher_classes)
        self.class_axis = class_axis
        self._index = torch.tensor(self.teacher_classes)

    def of_teacher(self, signals: Signals) -> Signals:
        self._index = self._index.to(signals.logits.device)  # copies once
        return replace(signals, logits=signals.logits.index_select(self.class_axis, self._index))


class VocabularyAlignment(Alignment):
    """One vocabulary has more rows than the other, beyond the tokens that both know.

    Args:
        num_tokens: the rows that stand for tokens. All others are minus infinity in both.
        student_size: the rows of the student, which both have afterwards.

    Example:

        >>> alignment = VocabularyAlignment(2, student_size=3)
        >>> alignment.of_student(Signals(torch.zeros(3))).logits
        tensor([0., 0., -inf])
        >>> alignment.of_teacher(Signals(torch.zeros(2))).logits
        tensor([0., 0., -inf])
    """

    def __init__(self, num_tokens: int, student_size: int) -> None:
        self.num_tokens = num_tokens
        self.num_padding = student_size - num_tokens

    def of_student(self, signals: Signals) -> Signals:
        return replace(signals, logits=self._tokens_alone(signals.logits))

    def of_teacher(self, signals: Signals) -> Signals:
        logits: Any = signals.logits
        if isinstance(logits, TopKLogits):
            return replace(signals, logits=self._top_k_tokens_alone(logits))
        return self.of_student(signals)

    def _top_k_tokens_alone(self, logits: TopKLogits) -> Any:
        """An entry that is no token becomes minus infinity, and its index that of one that is."""
        is_token = logits.indices < self.num_tokens
        token = logits.indices.gather(-1, is_token.int().argmax(-1, keepdim=True)).clamp(max=self.num_tokens - 1)
        num_others = self.num_tokens - logits.indices.shape[-1]
        if num_others <= 0:  # where some of the k are no tokens, tokens may be among the others all the same
            num_others = min(self.num_tokens, logits.num_others)
        return replace(
            logits,
            values=logits.values.masked_fill(~is_token, -torch.inf),
            indices=torch.where(is_token, logits.indices, token),
            num_others=num_others,
            num_classes=self.num_tokens + self.num_padding,
        )

    def _tokens_alone(self, logits: Tensor) -> Tensor:
        tokens = logits[..., : self.num_tokens]
        return torch.nn.functional.pad(tokens, (0, self.num_padding), value=-torch.inf) if self.num_padding else tokens


class TranscriptAlignment(Alignment):
    """The teacher writes down a sound with the student's tokens, which may have other numbers in its vocabulary.

    Args:
        teacher_rows: for each row of the student's vocabulary, the teacher's row of that token. None where there is no
            such token: the row is minus infinity in both then. Empty leaves all rows as they are.

    Raises:
        LengthMismatchError: if the two give another number of frames.

    Example:

        >>> student, teacher = Signals(torch.zeros(1, 1, 3)), Signals(torch.tensor([[[1.0, 2.0]]]))
        >>> TranscriptAlignment([1, None, 0])(student, teacher)[1].logits
        tensor([[[2., -inf, 1.]]])
    """

    def __init__(self, teacher_rows: Sequence[int | None] = ()) -> None:
        self.teacher_rows = tuple(teacher_rows)
        self._index = torch.tensor([row or 0 for row in self.teacher_rows])
        self._absent = torch.tensor([row is None for row in self.teacher_rows])

    def check(self, student: Signals, teacher: Signals) -> None:
        ours, theirs = student.logits.shape[-2], teacher.logits.shape[-2]
        if ours != theirs:
            raise LengthMismatchError(
                f"the student gives {ours} frames for a batch and the teacher {theirs}, so that no frame of one is a "
                "frame of the other. Choose a student that down-samples sounds as the teacher does (the strides of "
                "its convolutions multiply to the same number), or train on the labels alone with `alpha=1`."
            )

    def of_student(self, signals: Signals) -> Signals:
        if not self.teacher_rows:
            return signals
        self._absent = self._absent.to(signals.logits.device)  # copies once
        return replace(signals, logits=signals.logits.masked_fill(self._absent, -torch.inf))

    def of_teacher(self, signals: Signals) -> Signals:
        if not self.teacher_rows:
            return signals
        self._index = self._index.to(signals.logits.device)
        return self.of_student(replace(signals, logits=signals.logits.index_select(-1, self._index)))


class WidthAlignment(Alignment):
    """Student and teacher say everything in vectors of one width.

    Raises:
        LengthMismatchError: if they do not.
    """

    def check(self, student: Signals, teacher: Signals) -> None:
        ours, theirs = student.logits.shape[-1], teacher.logits.shape[-1]
        if ours != theirs:
            raise LengthMismatchError(
                f"the student's embeddings have width {ours} and the teacher's {theirs}, so they have no difference. "
                f"Give the student hidden_size={theirs}, or compare whom both find near with `head=SimilarityHead()`, "
                "from `hf_distill.heads`."
            )


class MemberAlignment(Alignment):
    """One of several teachers, on the classes that the student and all of them know.

    Args:
        own: its own alignment with the student.
        others: those of the other teachers.
    """

    def __init__(self, own: Alignment, others: Sequence[Alignment]) -> None:
        self.own = own
        self.others = tuple(others)

    def of_teacher(self, signals: Signals) -> Signals:
        return reduce(lambda known, other: other.of_student(known), self.others, self.own.of_teacher(signals))


class JointAlignment(Alignment):
    """The student beside several teachers, each brought onto its classes before they answer as one.

    Args:
        members: the alignment of each of them with the student.

    Example:

        >>> members = VocabularyAlignment(2, student_size=3), VocabularyAlignment(1, student_size=3)
        >>> JointAlignment(members).of_student(Signals(torch.zeros(3))).logits
        tensor([0., -inf, -inf])
    """

    def __init__(self, members: Sequence[Alignment]) -> None:
        self.members = tuple(dict.fromkeys(members))
        self.same_classes = all(member.same_classes for member in self.members)

    def check(self, student: Signals, teacher: Signals) -> None:
        for member in self.members:
            member.check(student, teacher)

    def of_student(self, signals: Signals) -> Signals:
        return reduce(lambda known, member: member.of_student(known), self.members, signals)


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
    student_names, teacher_names = (named_classes(config) for config in (student, teacher))
    if not student_names or not teacher_names:
        check_number_of_classes(student, teacher)
        if student_names or teacher_names:
            named, unnamed = ("student", "teacher") if student_names else ("teacher", "student")
            logger.warning_once(
                f"The {unnamed}'s classes have no names, so they are taken to be in the {named}'s order: "
                f"{student_names or teacher_names}. Give the {unnamed} the same `id2label` if that is so."
            )
        return Alignment()
    known = _comparable(student_names, teacher_names)
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


def transcript_alignment(
    student: Any, teacher: Any, student_tokens: Mapping[str, int] | None, teacher_tokens: Mapping[str, int] | None
) -> Alignment:
    """The student's tokens among the teacher's, where tokens are written and not read.

    So they are found by their strings, wherever they stand, without case if that tells them apart. The blank is the
    `pad_token_id` of the configuration, whatever it is called.

    Args:
        student, teacher: configurations.
        student_tokens, teacher_tokens: token to row of the vocabulary, special tokens under the name of what they are
            for (`unk_token` …); None where there is no tokenizer at hand.

    Raises:
        VocabularyMismatchError: if the teacher lacks a token of the student that is not special, or a vocabulary has
            another size or another blank and a tokenizer is missing.
    """
    if student_tokens is None or teacher_tokens is None:
        sizes = [(config.vocab_size, config.pad_token_id) for config in (student, teacher)]
        what = " and the teacher ".join(f"has vocab_size {size} with the blank at {blank}" for size, blank in sizes)
        remedy = "Save a tokenizer into the folder of the teacher, and pass the student's as `processing_class=`"
        if sizes[0] != sizes[1]:
            raise VocabularyMismatchError(
                f"the student {what}, and without both tokenizers nothing says which token is which. {remedy}."
            )
        if student_tokens is not teacher_tokens:  # one is at hand
            logger.warning_once(
                f"The student {what}. Only one tokenizer is at hand, so a row is taken to be the same token in both. "
                f"{remedy}, to have them compared."
            )
        return TranscriptAlignment()
    ours, theirs = (
        _rows_of_tokens(config, tokens) for config, tokens in ((student, student_tokens), (teacher, teacher_tokens))
    )
    names = _comparable(list(ours), list(theirs))
    teacher_row = dict(zip(names[1], theirs.values(), strict=True))
    found = {row: teacher_row.get(name) for name, row in zip(names[0], ours.values(), strict=True)}
    missing = [token for token, row in ours.items() if found[row] is None and token not in SPECIAL_TOKENS]
    if missing:
        raise VocabularyMismatchError(
            f"the student writes with {len(ours)} tokens and the teacher with {len(theirs)}, without {missing[:5]}, "
            "so it cannot say how likely they are. Give the student the teacher's tokenizer, or choose a teacher that "
            "knows all of the student's tokens."
        )
    rows = [found.get(row) for row in range(student.vocab_size)]
    return TranscriptAlignment(() if rows == list(range(teacher.vocab_size)) else rows)


def _rows_of_tokens(config: Any, tokens: Mapping[str, int]) -> dict[str, int]:
    """Token to row, of the tokens that have one; the blank, which has many names, under one that no token has."""
    rows = {token: row for token, row in tokens.items() if row < config.vocab_size and row != config.pad_token_id}
    return {**rows, BLANK: config.pad_token_id}


def named_classes(config: Any) -> list[str]:
    """The names of all classes, in order; empty if they are the placeholders that Transformers makes, or unordered."""
    names = config.id2label or {}
    if set(names) != set(range(len(names))) or all(name == f"LABEL_{index}" for index, name in names.items()):
        return []
    return [str(names[index]) for index in range(len(names))]


def _comparable(student_names: list[str], teacher_names: list[str]) -> tuple[list[str], list[str]]:
    """Both without case and surrounding blanks, unless two names of one side are the same then."""
    ours, theirs = ([name.strip().casefold() for name in names] for names in (student_names, teacher_names))
    is_distinct = all(len(set(names)) == len(names) for names in (ours, theirs))
    return (ours, theirs) if is_distinct else (student_names, teacher_names)

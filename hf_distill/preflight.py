"""What can go silently wrong with this teacher, student and data: checked before the first step."""

from collections.abc import Mapping, Sized
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_distill.errors import (
    ClassMismatchError,
    EmptyDatasetError,
    MissingInputError,
    MissingTeacherError,
    UnsupportedModelError,
    VocabularyMismatchError,
)
from hf_distill.heads import Head, QuestionAnsweringHead
from hf_distill.objective import Objective
from hf_distill.types import Batch


def check_models(student: PreTrainedModel, teacher: PreTrainedModel, head: Head, teacher_head: Head | None) -> None:
    """Student and teacher are two models whose outputs mean the same.

    Args:
        teacher_head: the teacher's own head; None if it is one that we do not know.

    Raises:
        MissingTeacherError: if they are one object.
        UnsupportedModelError: if their heads are of different kinds.
        VocabularyMismatchError, ClassMismatchError: if they choose from different numbers of tokens or classes, or
            name their classes differently.
    """
    if student is teacher:
        raise MissingTeacherError(
            f"teacher and student are the same {type(student).__name__} object, so there is nothing to learn. Pass a "
            "larger, trained model as `teacher=`, or `copy.deepcopy` it for self-distillation."
        )
    if teacher_head is not None and type(teacher_head) is not type(head):
        raise UnsupportedModelError(
            f"the student {type(student).__name__} has a {type(head).__name__} and the teacher "
            f"{type(teacher).__name__} a {type(teacher_head).__name__}, so their outputs are not comparable. Load the "
            f"teacher with {head.auto_class.__name__}."
        )
    if head.is_language_model:
        student_size, teacher_size = student.config.vocab_size, teacher.config.vocab_size
        if student_size != teacher_size:
            raise VocabularyMismatchError(
                f"the student has vocab_size {student_size} and the teacher {teacher_size}, so their logits are not "
                "comparable. Give the student the teacher's tokenizer and vocab_size, or choose another teacher."
            )
    elif not isinstance(head, QuestionAnsweringHead):
        _check_classes(student, teacher)


def _check_classes(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    if student.config.num_labels != teacher.config.num_labels:
        raise ClassMismatchError(
            f"the student has {student.config.num_labels} classes and the teacher {teacher.config.num_labels}. Give "
            f"the student num_labels={teacher.config.num_labels}, or fine-tune a teacher on the student's classes."
        )
    student_names, teacher_names = (_class_names(model.config.id2label) for model in (student, teacher))
    if student_names and teacher_names and student_names != teacher_names:
        first = next(i for i in student_names if student_names[i] != teacher_names.get(i))
        raise ClassMismatchError(
            f"class {first} is {student_names[first]!r} for the student and {teacher_names.get(first)!r} for the "
            "teacher, so each would learn the other's classes. Give the student the teacher's `id2label` and relabel "
            "the data, or fine-tune the teacher with the student's."
        )


def _class_names(id2label: Mapping[int, str]) -> dict[int, str]:
    """Lower-cased class names; empty if they are the placeholders that Transformers makes."""
    if all(name == f"LABEL_{index}" for index, name in id2label.items()):
        return {}
    return {int(index): str(name).lower() for index, name in id2label.items()}


def check_vocabularies(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> None:
    """Every token id stands for the same string in both tokenizers.

    Raises:
        VocabularyMismatchError: if it does not.
    """
    student_tokens, teacher_tokens = (
        {index: token for token, index in tokenizer.get_vocab().items()} for tokenizer in (student, teacher)
    )
    if student_tokens == teacher_tokens:
        return
    different = sorted(
        index
        for index in student_tokens.keys() | teacher_tokens.keys()
        if student_tokens.get(index) != teacher_tokens.get(index)
    )
    first = different[0]
    raise VocabularyMismatchError(
        f"student and teacher have {len(student_tokens)} and {len(teacher_tokens)} tokens, and {len(different)} token "
        f"ids stand for different strings (first: id {first} is {student_tokens.get(first)!r} for the student and "
        f"{teacher_tokens.get(first)!r} for the teacher), so the teacher would read another text. Tokenize the data "
        "with the teacher's tokenizer and train the student on that."
    )


def check_datasets(datasets: Mapping[str, Any]) -> None:
    """No data set is empty.

    Raises:
        EmptyDatasetError: naming the first that is.
    """
    for name, dataset in datasets.items():
        if isinstance(dataset, Sized) and not isinstance(dataset, dict) and len(dataset) == 0:
            raise EmptyDatasetError(f"`{name}` has 0 rows, so there is nothing to learn from or to measure on.")


def check_batch(batch: Batch, head: Head, objective: Objective) -> None:
    """A training batch holds what the objective reads.

    Raises:
        MissingInputError: if the objective reads labels and the batch has none.
    """
    if objective.requires.labels and not head.has_labels(batch):
        missing = [name for name in head.label_names if batch.get(name) is None]
        raise MissingInputError(
            f"the objective reads labels ({', '.join(objective.terms)}), and the batch lacks {missing}: it has only "
            f"{sorted(batch)}. Add the label column to the data set, or learn from the teacher alone with `alpha=0`."
        )

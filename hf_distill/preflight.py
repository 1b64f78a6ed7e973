"""What can go silently wrong with this teacher, student and data: checked before the first step."""

from collections.abc import Mapping, Sized
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_utils import unwrap_peft_model

from hf_distill.errors import (
    ClassMismatchError,
    ConfigurationError,
    EmptyDatasetError,
    MissingInputError,
    MissingTeacherError,
    UnsupportedModelError,
    VocabularyMismatchError,
)
from hf_distill.heads import Head, QuestionAnsweringHead, SingleLabelHead
from hf_distill.objective import Objective
from hf_distill.types import Batch


def check_apart(student: nn.Module, teacher: nn.Module) -> None:
    """Student and teacher share nothing that would be trained. To be asked before the teacher is frozen.

    Raises:
        MissingTeacherError: if they are one object, or share a parameter that is not frozen already.
    """
    if student is teacher:
        raise MissingTeacherError(
            f"teacher and student are the same {type(student).__name__} object, so there is nothing to learn. Pass a "
            "larger, trained model as `teacher=`, or `copy.deepcopy` it for self-distillation."
        )
    of_teacher = {id(parameter) for parameter in teacher.parameters() if parameter.requires_grad}
    shared = [name for name, parameter in student.named_parameters() if id(parameter) in of_teacher]
    if shared:
        raise MissingTeacherError(
            f"the student shares {len(shared)} parameters with the teacher (first: {shared[0]!r}), which would freeze "
            "them, since a teacher is never trained. `copy.deepcopy` what the student takes from the teacher, or set "
            "`requires_grad = False` on the shared parameters if they are to stay as they are."
        )


def check_models(student: nn.Module, teacher: PreTrainedModel, head: Head, teacher_head: Head | None) -> None:
    """The outputs of student and teacher mean the same.

    Args:
        teacher_head: the teacher's own head; None if it is one that we do not know.

    Raises:
        UnsupportedModelError: if their heads are of different kinds.
        VocabularyMismatchError, ClassMismatchError: if they choose from different numbers of tokens or classes, or
            name their classes differently.
    """
    student, teacher = unwrap_peft_model(student), unwrap_peft_model(teacher)
    if not isinstance(student, PreTrainedModel):
        return  # a module without configuration, of which only its `head` is known
    if teacher_head is not None and type(teacher_head) is not type(head):
        if teacher_head.auto_class is head.auto_class:
            _check_number_of_classes(student, teacher)
            remedy = (
                f"Both are {head.auto_class.__name__}: give both configurations one `problem_type` and `num_labels`"
            )
        else:
            remedy = f"Load the teacher with {head.auto_class.__name__}"
        raise UnsupportedModelError(
            f"the student {type(student).__name__} has a {type(head).__name__} and the teacher "
            f"{type(teacher).__name__} a {type(teacher_head).__name__}, so their outputs are not comparable. {remedy}."
        )
    if head.is_language_model:
        student_size, teacher_size = student.config.vocab_size, teacher.config.vocab_size
        if student_size != teacher_size:
            raise VocabularyMismatchError(
                f"the student has vocab_size {student_size} and the teacher {teacher_size}, so their logits are not "
                "comparable. Give the student the teacher's tokenizer and vocab_size, or choose another teacher."
            )
    elif not isinstance(head, QuestionAnsweringHead):
        _check_number_of_classes(student, teacher)
        _check_class_names(student, teacher)


def _check_number_of_classes(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    if student.config.num_labels != teacher.config.num_labels:
        raise ClassMismatchError(
            f"the student has {student.config.num_labels} classes and the teacher {teacher.config.num_labels}. Give "
            f"the student num_labels={teacher.config.num_labels}, or fine-tune a teacher on the student's classes."
        )


def _check_class_names(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    student_names, teacher_names = (_class_names(model.config.id2label) for model in (student, teacher))
    if student_names and teacher_names and student_names != teacher_names:
        first = next(i for i in student_names if student_names[i] != teacher_names.get(i))
        raise ClassMismatchError(
            f"class {first} is {student_names[first]!r} for the student and {teacher_names.get(first)!r} for the "
            "teacher, so each would learn the other's classes. Give the student the teacher's `id2label` and relabel "
            "the data, or fine-tune the teacher with the student's."
        )


def _class_names(id2label: Mapping[Any, str] | None) -> dict[int, str]:
    """Lower-cased class names; empty if they are the placeholders that Transformers makes."""
    if id2label is None or all(name == f"LABEL_{index}" for index, name in id2label.items()):
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
        ConfigurationError: if a model for one class of several gets labels that are no class indices.
    """
    labels = batch.get("labels")
    if type(head) is SingleLabelHead and isinstance(labels, Tensor) and labels.is_floating_point():
        raise ConfigurationError(
            f"the student chooses one class of several, and `labels` are {labels.dtype} of shape "
            f"{tuple(labels.shape)}, not class indices. Set `problem_type` to 'multi_label_classification' or "
            "'regression' in the configurations of student and teacher, or give integer labels."
        )
    if objective.requires.labels and not head.has_labels(batch):
        missing = [name for name in head.label_names if batch.get(name) is None]
        raise MissingInputError(
            f"the objective reads labels ({', '.join(objective.terms)}), and the batch lacks {missing}: it has only "
            f"{sorted(batch)}. Add the label column to the data set, or learn from the teacher alone with `alpha=0`."
        )

"""What can go silently wrong with this teacher, student and data: checked before the first step."""

import inspect
from collections.abc import Sequence, Sized
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_utils import unwrap_peft_model
from transformers.utils import logging

from hf_distill.errors import (
    ConfigurationError,
    EmptyDatasetError,
    LengthMismatchError,
    MissingInputError,
    MissingTeacherError,
    UnsupportedModelError,
    VocabularyMismatchError,
)
from hf_distill.heads import (
    CausalLMHead,
    CTCHead,
    EmbeddingHead,
    Head,
    MaskedLMHead,
    ObjectDetectionHead,
    RegressionHead,
    SemanticSegmentationHead,
    SingleLabelHead,
)
from hf_distill.heads.alignment import (
    Alignment,
    JointAlignment,
    MemberAlignment,
    UnalignedClasses,
    VocabularyAlignment,
    WidthAlignment,
    check_number_of_classes,
    class_alignment,
    transcript_alignment,
    vocabulary_alignment,
)
from hf_distill.heads.query_matching import QueryMatching, detection_alignment
from hf_distill.objective import Objective
from hf_distill.raw_columns import TEXT
from hf_distill.teachers import (
    CachedTeacher,
    ColumnTeacher,
    CompositeTeacher,
    KnownTeacher,
    OnlineTeacher,
    ServedTeacher,
    Teacher,
    known_teachers,
    own_tokenizer,
)
from hf_distill.teachers.own_tokenizer import different_ids, tokens_by_id
from hf_distill.terms import BoxTerm, HardLabelTerm
from hf_distill.types import CACHED_PREFIX, TEACHER_PREFIX, Batch


logger = logging.get_logger(__name__)

UNSMOOTHED = (CTCHead, ObjectDetectionHead, RegressionHead, SemanticSegmentationHead)
"""Heads whose labels name no class for each score: those of pixels are larger than the scores."""


def check_apart(student: nn.Module, teacher: Any) -> None:
    """Student and teacher share nothing that would be trained. To be asked before the teacher is frozen.

    Args:
        teacher: a model, or a teacher made of several. Whatever else it may be is not looked into.

    Raises:
        MissingTeacherError: if they are one object, or share a parameter that is not frozen already.
    """
    if isinstance(teacher, CompositeTeacher):
        for member in teacher.members:
            check_apart(student, member)
    if not isinstance(teacher, nn.Module):
        return
    if student is teacher:
        raise MissingTeacherError(
            f"teacher and student are the same {type(student).__name__} object, so there is nothing to learn. Pass a "
            "larger, trained model as `teacher=`, or `copy.deepcopy` it for self-distillation. "
            "`teacher=AdapterOffTeacher()` is the student of PEFT without its adapter."
        )
    of_teacher = {id(parameter) for parameter in teacher.parameters() if parameter.requires_grad}
    shared = [name for name, parameter in student.named_parameters() if id(parameter) in of_teacher]
    if shared:
        raise MissingTeacherError(
            f"the student shares {len(shared)} parameters with the teacher (first: {shared[0]!r}), which would freeze "
            "them, since a teacher is never trained. `copy.deepcopy` what the student takes from the teacher, or set "
            "`requires_grad = False` on the shared parameters if they are to stay as they are."
        )


def check_own_loss(student: nn.Module, head: Head) -> None:
    """The student's forward takes the labels, so that it has a loss of its own.

    Raises:
        ConfigurationError: if it does not.
    """
    student = unwrap_peft_model(student)
    parameters = inspect.signature(student.forward).parameters.values()
    missing = [name for name in head.label_names if name not in {parameter.name for parameter in parameters}]
    # Where one of Transformers' models takes further keywords, labels are not among them.
    takes_all = not isinstance(student, PreTrainedModel) and any(each.kind is each.VAR_KEYWORD for each in parameters)
    if not head.has_own_loss or (missing and not takes_all):
        raise ConfigurationError(
            f"the objective reads labels, and the forward of the student {type(student).__name__} "
            f"takes no {missing}, so it has no loss of its own. Learn from the teacher alone, with a weight of 0 for "
            "the labels (`alpha=0`, or `labels=0` of recipes such as rkd), or give the loss as `compute_loss_func=`."
        )


def check_replaced_loss(objective: Objective, head: Head, smoother: Any, function: Any) -> None:
    """`label_smoothing_factor` and `compute_loss_func` replace a loss that is learned; a warning, if they do not.

    Raises:
        ConfigurationError: if labels are smoothed that are transcripts, numbers, boxes or pixels.
    """
    given = {"`label_smoothing_factor`": smoother, "`compute_loss_func`": function}
    names = " and ".join(name for name, value in given.items() if value is not None)
    if names and not any(isinstance(weighted.term, HardLabelTerm) for weighted in objective.terms.values()):
        logger.warning_once(
            f"{names} changes the labels' loss, which the objective ({', '.join(objective.terms)}) does not learn "
            "from, so it changes what an evaluation says and nothing in the training. Give the labels a weight."
        )
    elif smoother is not None and function is None and "labels" not in head.label_names:
        logger.warning_once(
            f"`label_smoothing_factor` has no effect: `Trainer` smooths `labels`, and a {type(head).__name__} learns "
            f"from {' and '.join(f'`{name}`' for name in head.label_names)}."
        )
    if objective.requires.labels and smoother is not None and isinstance(head, UNSMOOTHED):
        raise ConfigurationError(
            f"`label_smoothing_factor` replaces the student's own loss by a cross-entropy with its labels, and those "
            f"of a {type(head).__name__} name no class for each of its scores. Set `label_smoothing_factor=0`."
        )


def check_models(student: nn.Module, teacher: PreTrainedModel, head: Head, teacher_head: Head | None) -> None:
    """Student and teacher have heads of one kind.

    Args:
        teacher_head: the teacher's own head; None if it is one that we do not know.

    Raises:
        UnsupportedModelError: if their heads are of different kinds, or read outputs in different ways.
        ClassMismatchError: if that is because one has a single class, which makes it a regression.
    """
    student, teacher = unwrap_peft_model(student), unwrap_peft_model(teacher)
    if not isinstance(student, PreTrainedModel):
        return  # a module without configuration, of which only its `head` is known
    if teacher_head is not None and type(teacher_head) is not type(head):
        if isinstance(head, ObjectDetectionHead) and isinstance(teacher_head, ObjectDetectionHead):
            remedy = (
                "One chooses a class or 'no object' for each box, the other says yes or no to each class. Take a "
                "teacher of the student's kind"
            )
        elif teacher_head.auto_class is head.auto_class:
            check_number_of_classes(student.config, teacher.config)
            remedy = (
                f"Both are {head.auto_class.__name__}: give both configurations one `problem_type` and `num_labels`"
            )
        else:
            remedy = f"Load the teacher with {head.auto_class.__name__}"
        raise UnsupportedModelError(
            f"the student {type(student).__name__} has a {type(head).__name__} and the teacher "
            f"{type(teacher).__name__} a {type(teacher_head).__name__}, so their outputs are not comparable. {remedy}."
        )
    if teacher_head is not None and teacher_head.reading != head.reading:
        raise UnsupportedModelError(
            f"the student {type(student).__name__} is read with {head.reading} and the teacher "
            f"{type(teacher).__name__} with {teacher_head.reading}, each as models of its kind usually are. Read both "
            f"alike: pass `head={type(head).__name__}({teacher_head.reading})`, or what suits both."
        )


def align(
    student: nn.Module,
    teacher: Teacher | None,
    head: Head,
    tokenizers: tuple[PreTrainedTokenizerBase | None, ...],
    reads_apart: bool = False,
) -> Alignment:
    """What makes the class scores of the student and its teacher comparable.

    Where a teacher is made of several, each is told how to answer on the classes that the student and all of them
    know: where vocabularies differ, the tokens that every one of them has.

    Args:
        tokenizers: the student's, and one for each teacher whose configuration is known.
        reads_apart: as in `alignment`.

    Raises:
        ClassMismatchError, VocabularyMismatchError, ImportError: as `alignment`.
    """
    known = known_teachers(teacher)
    found = [
        alignment(
            student,
            each.model if isinstance(each, OnlineTeacher) else each,
            head,
            tokenizers[0],
            tokenizer,
            reads_apart,
        )
        for each, tokenizer in zip(known, tokenizers[1:], strict=False)  # teachers that are not known have none
    ]
    if not isinstance(teacher, CompositeTeacher):
        for each in known:  # which may have been one of several before
            each.alignment = Alignment()
        return found[0] if found else unnamed_alignment(head)
    if vocabularies := [each for each in found if isinstance(each, VocabularyAlignment)]:
        found = [min(vocabularies, key=lambda each: each.num_tokens)] * len(found)
    for each, own in zip(known, found, strict=True):
        each.alignment = MemberAlignment(own, [other for other in found if other is not own])
    return JointAlignment(found)


def check_composite(head: Head, teacher: Teacher | None) -> None:
    """Several teachers can answer as one for a student of this kind.

    Raises:
        UnsupportedModelError: for a detector, whose boxes have no order in which two teachers would agree.
    """
    if isinstance(teacher, CompositeTeacher) and isinstance(head, ObjectDetectionHead):
        raise UnsupportedModelError(
            f"the student is a detector, and the teacher, a {type(teacher).__name__}, is made of several: the boxes "
            "of two detectors have no order in which one stands for the other, so they have no joint answer. Pass one "
            "model as `teacher=`."
        )


def alignment(
    student: nn.Module,
    teacher: PreTrainedModel | CachedTeacher | ServedTeacher | ColumnTeacher,
    head: Head,
    student_tokenizer: PreTrainedTokenizerBase | None = None,
    teacher_tokenizer: PreTrainedTokenizerBase | None = None,
    reads_apart: bool = False,
) -> Alignment:
    """What makes the class scores of student and teacher comparable.

    Args:
        teacher: the model, or what it said; the configuration is looked at.
        reads_apart: whether the teacher reads by its own tokenizer, which may then have other tokens.

    Raises:
        ClassMismatchError: as `class_alignment`.
        VocabularyMismatchError: as `check_vocabularies`, `vocabulary_alignment` and `transcript_alignment`.
        ImportError: as `QueryMatching`.
    """
    if student is teacher:
        return unnamed_alignment(head)
    is_read = not isinstance(head, CTCHead)  # or only written
    if is_read and student_tokenizer is not None and teacher_tokenizer is not None:
        if reads_apart and isinstance(head, CausalLMHead) and different_ids(student_tokenizer, teacher_tokenizer):
            return UnalignedClasses()
        check_vocabularies(student_tokenizer, teacher_tokenizer)
    student, teacher = unwrap_peft_model(student), unwrap_peft_model(teacher)
    if not isinstance(student, PreTrainedModel):
        return unnamed_alignment(head)
    if isinstance(head, EmbeddingHead):
        return Alignment() if head.compares_rows else WidthAlignment()
    if isinstance(head, CTCHead):
        tokens = (_named_by_role(tokenizer) for tokenizer in (student_tokenizer, teacher_tokenizer))
        return transcript_alignment(student.config, teacher.config, *tokens)
    if head.class_axis is None:
        return Alignment()
    if head.is_language_model:
        ours, theirs = (model.config.get_text_config(decoder=True).vocab_size for model in (student, teacher))
        return vocabulary_alignment(ours, theirs, _num_tokens(student_tokenizer), _num_tokens(teacher_tokenizer))
    if isinstance(head, RegressionHead) and student.config.num_labels == teacher.config.num_labels == 1:
        return Alignment()
    if isinstance(head, ObjectDetectionHead):
        return detection_alignment(student.config, teacher.config, head)
    return class_alignment(student.config, teacher.config, head.class_axis)


def unnamed_alignment(head: Head) -> Alignment:
    """What makes the outputs comparable where no configuration names the classes: they are in the same order."""
    return QueryMatching(Alignment()) if isinstance(head, ObjectDetectionHead) else Alignment()


def check_same_tokens(objective: Objective, teacher_processing_class: Any) -> None:
    """Layers are compared token by token, so student and teacher read the same tokens.

    Raises:
        ConfigurationError: if the teacher has a tokenizer or processor of its own.
    """
    if objective.compares_layers and teacher_processing_class is not None:
        raise ConfigurationError(
            f"the objective compares layers token by token ({', '.join(objective.terms)}), and by "
            f"`teacher_processing_class`, a {type(teacher_processing_class).__name__}, the teacher would read other "
            "tokens than the student. Prepare the data in the teacher's way, train the student on that, and leave "
            "`teacher_processing_class` out; or drop the terms that compare layers."
        )


def check_separate_inputs(
    head: Head,
    teacher: Any,
    teacher_processing_class: Any,
    columns: Any,
    tokenizers: tuple[PreTrainedTokenizerBase | None, ...],
) -> None:
    """A teacher that is given inputs of its own can be compared with the student.

    Args:
        tokenizers: the student's and the teachers', which read alike.

    Raises:
        ConfigurationError: if there is no such teacher, or its outputs would lie on tokens that cannot be matched with
            the student's.
    """
    if teacher_processing_class is None:
        if columns is not None:
            raise ConfigurationError(
                f"`teacher_columns` names {list(columns)}, and nothing reads them. Pass the teacher's tokenizer or "
                "processor as `teacher_processing_class=`, or leave `teacher_columns` out."
            )
        return
    if teacher is None:
        raise ConfigurationError(
            f"`teacher_processing_class` is a {type(teacher_processing_class).__name__}, and there is no teacher to "
            "read by it. Pass `teacher=`, or leave `teacher_processing_class` out."
        )
    if isinstance(head, CausalLMHead):
        for name, tokenizer in zip(("processing_class", "teacher_processing_class"), tokenizers[:2], strict=True):
            if tokenizer is None or not tokenizer.is_fast:
                raise ConfigurationError(
                    f"`{name}` is a {type(tokenizer).__name__}, and tokens of student and teacher are matched by the "
                    f"characters that they stand for. Pass a fast tokenizer as `{name}=`."
                )
    elif head.positions_are_tokens:
        why = " under masks that hide other characters" if isinstance(head, MaskedLMHead) else ""
        raise ConfigurationError(
            f"`teacher_processing_class` is a {type(teacher_processing_class).__name__}, and the outputs of a "
            f"{type(head).__name__} lie on tokens: those of the teacher would lie on others than the student's{why}. "
            "Tokenize the data with the teacher's tokenizer, train the student on that, and leave "
            "`teacher_processing_class` out."
        )


def check_terms(alignment: Alignment, objective: Objective, report_agreement: bool) -> None:
    """Where a token means another thing to the teacher, nothing compares token by token.

    Raises:
        VocabularyMismatchError: naming the terms that do.
        ConfigurationError: if the evaluation is to.
    """
    if alignment.same_classes:
        return
    terms = {name: weighted.term for name, weighted in objective.terms.items()}
    comparing = [name for name, term in terms.items() if term.requires.teacher and term.needs_same_classes]
    if comparing:
        raise VocabularyMismatchError(
            "student and teacher have different vocabularies, and these terms compare what both say of each token: "
            f"{', '.join(f'{name!r} ({type(terms[name]).__name__})' for name in comparing)}. Pass "
            "`objective=recipes.uld()`, which compares sorted probabilities, or tokenize the data with the teacher's "
            "tokenizer and train the student on that."
        )
    if report_agreement:
        raise ConfigurationError(
            "`report_agreement=True` counts how often student and teacher choose the same token, and they have "
            "different vocabularies. Leave it out."
        )


def tokenizers(
    processing_class: Any,
    teachers: Sequence[KnownTeacher],
    head: Head,
    teacher_processing_class: Any = None,
) -> tuple[PreTrainedTokenizerBase | None, ...]:
    """The student's tokenizer, and those in the folders or repositories that teachers came from.

    Args:
        processing_class: what the Trainer was given; a tokenizer, a processor that has one, or neither.
        teachers: those that are models, or answers of models.
        head: the student's. Without its tokenizer, the teachers' are only looked for where tokens are the classes.
        teacher_processing_class: what the teachers read by, if not by the student's. Its tokenizer only matters where
            tokens are the classes.
    """
    student = TEXT.reader_of(processing_class)
    if teacher_processing_class is not None:
        has_tokens_for_classes = head.is_language_model or isinstance(head, CTCHead)
        own = TEXT.reader_of(teacher_processing_class) if has_tokens_for_classes else None
        return student, *([own] * max(1, len(teachers)))
    if not teachers or (student is None and not head.is_language_model):
        return student, *([None] * max(1, len(teachers)))
    return student, *(own_tokenizer(teacher, student) for teacher in teachers)


def _num_tokens(tokenizer: PreTrainedTokenizerBase | None) -> int | None:
    """How many rows of a vocabulary the tokenizer can name."""
    return None if tokenizer is None else max(tokenizer.get_vocab().values()) + 1


def _named_by_role(tokenizer: PreTrainedTokenizerBase | None) -> dict[str, int] | None:
    """Token to id, where "<unk>" and "[UNK]" are one token."""
    if tokenizer is None:
        return None
    roles = {token: role for role, token in tokenizer.special_tokens_map.items()}
    return {roles.get(token, token): index for token, index in tokenizer.get_vocab().items()}


def check_vocabularies(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> None:
    """Every token id of the student stands for the same string in both tokenizers.

    The teacher may know more tokens: the student's text does not hold them.

    Raises:
        VocabularyMismatchError: if one does not. Both read the same token ids, so no other order can make up for it.
    """
    different = different_ids(student, teacher)
    if not different:
        return
    first = different[0]
    student_tokens, teacher_tokens = tokens_by_id(student), tokens_by_id(teacher)
    raise VocabularyMismatchError(
        f"student and teacher have {len(student_tokens)} and {len(teacher_tokens)} tokens, and {len(different)} token "
        f"ids stand for different strings (first: id {first} is {student_tokens.get(first)!r} for the student and "
        f"{teacher_tokens.get(first)!r} for the teacher), so the teacher would read another text. Pass the teacher's "
        "tokenizer as `teacher_processing_class=`, to tokenize for it separately, for causal language models with "
        "`objective=recipes.uld()`; where the outputs are themselves tokens otherwise, tokenize the data with it and "
        "train the student on that."
    )


def check_datasets(train: Any, evaluation: Any) -> None:
    """No data set is empty.

    Args:
        evaluation: one, or several by their names.

    Raises:
        EmptyDatasetError: naming the first that is.
    """
    evaluations = evaluation if isinstance(evaluation, dict) else {"": evaluation}
    named = {f"eval_dataset[{name!r}]" if name else "eval_dataset": data for name, data in evaluations.items()}
    for name, dataset in {"train_dataset": train, **named}.items():
        if isinstance(dataset, Sized) and not isinstance(dataset, dict) and len(dataset) == 0:
            raise EmptyDatasetError(f"`{name}` has 0 rows, so there is nothing to learn from or to measure on.")


def check_batch(batch: Batch, head: Head, objective: Objective) -> None:
    """A training batch holds what the objective reads; a warning, if a detector would not learn where objects are.

    Raises:
        MissingInputError: if the objective reads labels and the batch has none.
        ConfigurationError: if a model for one class of several gets labels that are no class indices, or layers are
            compared and the teacher reads other tokens.
        LengthMismatchError: if pixels are compared, and the teacher is given images of another size.
    """
    own = [name for name in batch if name.startswith(TEACHER_PREFIX) and not name.startswith(CACHED_PREFIX)]
    if objective.compares_layers and own:
        raise ConfigurationError(
            f"the objective compares layers token by token ({', '.join(objective.terms)}), and the batch has inputs "
            f"of the teacher's own, {own}, which are other tokens. Leave those columns out, or drop the terms that "
            "compare layers."
        )
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
    images, others = (batch.get(f"{prefix}pixel_values") for prefix in ("", TEACHER_PREFIX))
    is_unlabelled = isinstance(head, SemanticSegmentationHead) and batch.get("labels") is None
    if is_unlabelled and images is not None and others is not None and images.shape[-2:] != others.shape[-2:]:
        raise LengthMismatchError(
            f"the student's images have {tuple(images.shape[-2:])} pixels and the teacher's "
            f"{tuple(others.shape[-2:])}, so that no pixel of one is a pixel of the other. Give both processors one "
            "`size`, or keep `labels` in the batch: the scores of both are brought to their resolution."
        )
    terms = [weighted.term for weighted in objective.terms.values()]
    if isinstance(head, ObjectDetectionHead) and not any(isinstance(t, (HardLabelTerm, BoxTerm)) for t in terms):
        logger.warning_once(
            f"The objective ({', '.join(objective.terms)}) has neither the labels nor a `BoxTerm`, so nothing teaches "
            "the student where objects are, unless a term of your own does. `recipes.hungarian_matching` has both."
        )

"""The tokenizer that a teacher reads by, beside another one."""

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from hf_distill.teachers.composite import KnownTeacher
from hf_distill.teachers.served import ServedTeacher


logger = logging.get_logger(__name__)


def own_tokenizer(
    teacher: KnownTeacher, student_tokenizer: PreTrainedTokenizerBase | None
) -> PreTrainedTokenizerBase | None:
    """The tokenizer in the folder or repository that a teacher came from; the student's, if a server reads as it does.

    Raises:
        VocabularyMismatchError, TeacherServerError: as [`ServedTeacher.same_tokenizer`].
    """
    if teacher.reads_apart:
        return None
    if isinstance(teacher, ServedTeacher):
        return teacher.same_tokenizer(student_tokenizer)
    return _tokenizer_at(teacher.name_or_path, teacher.may_download)


def different_ids(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> list[int]:
    """The student's token ids that do not stand for the same string in the teacher's tokenizer, in order."""
    teacher_tokens = tokens_by_id(teacher)
    return sorted(index for index, token in tokens_by_id(student).items() if teacher_tokens.get(index) != token)


def tokens_by_id(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Every token under its number."""
    return {index: token for token, index in tokenizer.get_vocab().items()}


def _tokenizer_at(name_or_path: str | None, may_download: bool) -> PreTrainedTokenizerBase | None:
    if not name_or_path:
        return None
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            name_or_path, local_files_only=not may_download
        )
    except (OSError, ValueError):
        tokens: set[str] = set()
    else:
        # Without any tokenizer file, Transformers makes up a tokenizer that knows special tokens alone.
        tokens = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
    if not tokens:
        logger.info(f"{name_or_path} holds no tokenizer, so the vocabularies were not compared.")
    return tokenizer if tokens else None

"""Models and their processors, from an id or a path, and the student in each of the ways that there are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import transformers
from transformers import AutoConfig, PreTrainedModel, set_seed

from hf_distill.cache import is_cache
from hf_distill.errors import ConfigurationError
from hf_distill.heads.resolve import class_names, head_of
from hf_distill.processing import TASKS, Labels, task_of
from hf_distill.students import student_from_teacher
from hf_distill.teachers import CachedTeacher
from hf_distill.teachers.online import check_trained


CLASSES = ("id2label", "label2id", "problem_type")


@dataclass(frozen=True)
class StudentSource:
    """Where the student comes from."""

    name_or_path: str | None = None
    """A model of its own; the teacher, cut to `sizes`, if None."""
    from_scratch: bool = False
    """Whether that model is to start with random weights."""
    sizes: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `student_from_teacher`."""


def task_of_model(name_or_path: str) -> str:
    """The task of a model, or of the one whose answers are in a cache, by the class that its configuration names."""
    if is_cache(name_or_path):
        return task_of(CachedTeacher(name_or_path).config)
    return task_of(_from_pretrained(AutoConfig, name_or_path))


def load_model(name_or_path: str, task: str, **configuration: Any) -> PreTrainedModel:
    """A model with the head of a task.

    Raises:
        ConfigurationError: if it is a cache.
    """
    if is_cache(name_or_path):
        raise ConfigurationError(
            f"{name_or_path!r} is a cache of a teacher's answers, which holds no weights, and a model is needed here. "
            "Name the model that gave them."
        )
    auto_class = getattr(transformers, TASKS[task].auto_class)
    model: PreTrainedModel = _from_pretrained(auto_class, name_or_path, **configuration)
    return model


def load_teacher(name_or_path: str, task: str) -> PreTrainedModel | CachedTeacher:
    """A teacher: a model, or what one has answered, if it is the folder of a cache."""
    return CachedTeacher(name_or_path) if is_cache(name_or_path) else load_trained(name_or_path, task)


def load_trained(name_or_path: str, task: str, **configuration: Any) -> PreTrainedModel:
    """A model that has learnt a task, so that it can teach it.

    Raises:
        ConfigurationError: if it is a cache.
        UntrainedTeacherError: if its checkpoint lacks weights of the head, which would then be random.
    """
    found: Any = load_model(name_or_path, task, output_loading_info=True, **configuration)
    model, loading = found
    check_trained(model, loading["missing_keys"], head_of(model))
    return cast("PreTrainedModel", model)


def load_with_classes(name_or_path: str, task: str, labels: Labels | None, seed: int) -> PreTrainedModel:
    """A model whose head, where it has to be made anew, chooses between the classes of the data.

    A head that is there already keeps its classes. A new one is the same at every call.
    """
    set_seed(seed)
    auto_class = getattr(transformers, TASKS[task].auto_class)
    config: Any = _from_pretrained(AutoConfig, name_or_path)
    if labels is None or set(config.architectures or ()) & class_names(auto_class):
        return load_model(name_or_path, task)
    return load_model(name_or_path, task, **labels.configuration())


def load_processor(name_or_path: str, task: str) -> Any:
    """What reads for a model, or has read for a cache: its tokenizer, image processor or feature extractor."""
    if is_cache(name_or_path):
        name_or_path = CachedTeacher(name_or_path).name_or_path
    return _from_pretrained(getattr(transformers, TASKS[task].auto_processor), name_or_path)


def make_student(
    source: StudentSource, teacher: PreTrainedModel | CachedTeacher, task: str, seed: int
) -> PreTrainedModel:
    """The student, the same at every call.

    A model of another head, or without one, gets the teacher's classes.

    Raises:
        ConfigurationError: if nothing says what the student is to be, or two things do; if it is to be cut out of a
            cache.
    """
    wanted = {name: size for name, size in source.sizes.items() if size is not None}
    if (source.name_or_path is None) == (not wanted):
        given = f"student={source.name_or_path!r}" if source.name_or_path else "no student"
        raise ConfigurationError(
            f"{given} and {', '.join(f'{name}={size}' for name, size in wanted.items()) or 'no size'} are given. Name "
            "a `student`, or what of the teacher to keep, such as `num_hidden_layers`."
        )
    set_seed(seed)
    if source.name_or_path is None:
        if isinstance(teacher, CachedTeacher):
            raise ConfigurationError(
                f"the teacher is the cache {str(teacher.cache.path)!r}, which holds no weights to make a student of. "
                "Make one of the model that gave the answers, by `hf-distill student`, and name its folder as "
                "`student`."
            )
        cut: PreTrainedModel = student_from_teacher(teacher, **wanted)
        return cut
    auto_class = getattr(transformers, TASKS[task].auto_class)
    config: Any = _from_pretrained(AutoConfig, source.name_or_path)
    has_head = bool(set(config.architectures or ()) & class_names(auto_class))
    if TASKS[task].labels_in_lists is not None and not (has_head and not source.from_scratch):
        config.update({name: getattr(teacher.config, name) for name in CLASSES})
    if source.from_scratch:
        student: PreTrainedModel = auto_class.from_config(config)
        return student
    return load_model(source.name_or_path, task, config=config)


def _from_pretrained(kind: Any, name_or_path: str, **options: Any) -> Any:
    """What `kind.from_pretrained` loads.

    Raises:
        ConfigurationError: if there is no such folder, and nothing of that name was found on the Hub.
    """
    try:
        return kind.from_pretrained(name_or_path, **options)
    except OSError as error:
        if Path(name_or_path).exists():
            raise
        raise ConfigurationError(
            f"the model {name_or_path!r} is no folder, seen from {Path.cwd()}, and was not found on the Hub: {error}"
        ) from error


def reads_alike(processor: Any, other: Any) -> bool:
    """Whether two tokenizers or image processors make the same inputs of the same rows, as far as they say."""
    if hasattr(processor, "get_vocab"):
        return type(processor) is type(other) and processor.get_vocab() == other.get_vocab()
    return bool(processor.to_dict() == other.to_dict())

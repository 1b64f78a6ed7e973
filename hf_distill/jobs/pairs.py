"""Teacher and student of a job."""

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from hf_distill.errors import ConfigurationError
from hf_distill.jobs.data import Data
from hf_distill.jobs.models import StudentSource, load_processor, load_teacher, make_student, reads_alike
from hf_distill.jobs.training import trainer_for
from hf_distill.objective import Objective
from hf_distill.processing import Reading
from hf_distill.teachers import CachedTeacher
from hf_distill.trainer import DistillationTrainer
from hf_distill.training_args import DistillationTrainingArguments


@dataclass(frozen=True)
class Pair:
    """Teacher and student, and how each reads the data."""

    teacher: PreTrainedModel | CachedTeacher
    student: PreTrainedModel
    data: Data
    teacher_reading: Reading | None
    """None of a cache, which reads nothing."""
    student_reading: Reading
    teacher_processor: Any
    """The teacher's own, where it reads other inputs than the student."""

    def trainer(
        self, args: DistillationTrainingArguments, objective: Objective | None = None, **changes: Any
    ) -> DistillationTrainer:
        """Of the student, taught by the teacher."""
        return trainer_for(
            self.student,
            self.data,
            self.student_reading,
            args,
            self.teacher,
            objective,
            self.teacher_processor,
            **changes,
        )


def make_pair(teacher: str, source: StudentSource, data: Data, seed: int) -> Pair:
    """Load the teacher, a model or a cache, and make the student.

    Raises:
        ConfigurationError: if the student reads by another tokenizer or processor than a cache was made by.
    """
    model = load_teacher(teacher, data.task_name)
    processor = load_processor(teacher, data.task_name)
    student = make_student(source, model, data.task_name, seed)
    own = processor if source.name_or_path is None else load_processor(source.name_or_path, data.task_name)
    alike, is_cached = reads_alike(own, processor), isinstance(model, CachedTeacher)
    if is_cached and not alike:
        raise ConfigurationError(
            f"the cache {teacher!r} holds answers to rows as a {type(processor).__name__} of its own reads them, and "
            f"the student {source.name_or_path!r} reads by another one, so none of its rows would be found. Take a "
            "student that reads as the teacher does, or the model itself as teacher."
        )
    return Pair(
        model,
        student,
        data,
        None if isinstance(model, CachedTeacher) else data.reading(model, processor),
        data.reading(student, own),
        None if alike else processor,
    )

"""A teacher that is made of others."""

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

from accelerate import Accelerator
from torch import nn

from hf_distill.heads import Head
from hf_distill.teachers.base import Teacher
from hf_distill.teachers.cached import CachedTeacher
from hf_distill.teachers.column import ColumnTeacher
from hf_distill.teachers.online import OnlineTeacher, as_teacher
from hf_distill.teachers.served import ServedTeacher


KnownTeacher = OnlineTeacher | CachedTeacher | ServedTeacher | ColumnTeacher


class CompositeTeacher(Teacher):
    """Several teachers that answer as one. Each follows the student, and is aligned with its classes, on its own.

    Args:
        members: models, Hub ids, local paths, or any [`Teacher`]. What is no teacher yet becomes an
            [`OnlineTeacher`] with the student's head when the Trainer starts.
    """

    def __init__(self, members: Iterable[Any]) -> None:
        self.members = tuple(members)

    @property
    def input_names(self) -> frozenset[str]:
        return frozenset().union(*(member.input_names for member in self.members))

    def meet(self, student: nn.Module, head: Head) -> None:
        self.members = tuple(as_teacher(member, head) for member in self.members)
        for member in self.members:
            member.meet(student, head)

    def collator_for(self, collator: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return reduce(lambda inner, member: member.collator_for(inner), self.members, collator)

    def prepare(self, accelerator: Accelerator) -> None:
        for member in self.members:
            member.prepare(accelerator)


def single_teachers(teacher: Teacher | None) -> list[Teacher]:
    """Every teacher, at any depth, that is not made of others, in their order."""
    if isinstance(teacher, CompositeTeacher):
        return [single for member in teacher.members for single in single_teachers(member)]
    return [] if teacher is None else [teacher]


def known_teachers(teacher: Teacher | None) -> list[KnownTeacher]:
    """Those of them, each once, whose configuration is known: models, here or served, and what was written down."""
    singles = dict.fromkeys(single_teachers(teacher))
    return [each for each in singles if isinstance(each, KnownTeacher)]


def online_teachers(teacher: Teacher | None) -> list[OnlineTeacher]:
    """Those of them that are models, each once."""
    return [each for each in known_teachers(teacher) if isinstance(each, OnlineTeacher)]

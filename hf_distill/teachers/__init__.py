"""Whom a student can imitate: every teacher is one method, `signals(batch)`."""

from hf_distill.teachers.adapter_off import AdapterOffTeacher
from hf_distill.teachers.base import Teacher
from hf_distill.teachers.cached import CachedTeacher, load_teacher
from hf_distill.teachers.caching import cache_teacher
from hf_distill.teachers.column import ColumnTeacher
from hf_distill.teachers.composite import (
    CompositeTeacher,
    KnownTeacher,
    known_teachers,
    online_teachers,
    single_teachers,
)
from hf_distill.teachers.ensemble import EnsembleTeacher
from hf_distill.teachers.online import OnlineTeacher, as_teacher
from hf_distill.teachers.own_tokenizer import own_tokenizer
from hf_distill.teachers.processing import ProcessingTeacher
from hf_distill.teachers.routed import RoutedTeacher
from hf_distill.teachers.served import ServedTeacher


__all__ = [
    "AdapterOffTeacher",
    "CachedTeacher",
    "ColumnTeacher",
    "CompositeTeacher",
    "EnsembleTeacher",
    "KnownTeacher",
    "OnlineTeacher",
    "ProcessingTeacher",
    "RoutedTeacher",
    "ServedTeacher",
    "Teacher",
    "as_teacher",
    "cache_teacher",
    "known_teachers",
    "load_teacher",
    "online_teachers",
    "own_tokenizer",
    "single_teachers",
]

"""Whom a student can imitate: every teacher is one method, `signals(batch)`."""

from hf_distill.teachers.base import Teacher
from hf_distill.teachers.online import OnlineTeacher


__all__ = ["OnlineTeacher", "Teacher"]

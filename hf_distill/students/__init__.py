"""Making a student out of a teacher: fewer layers, narrower layers, a smaller vocabulary."""

from hf_distill.students.from_teacher import student_from_teacher


__all__ = ["student_from_teacher"]

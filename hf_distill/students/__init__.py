"""Students made of their teachers: with fewer or narrower layers, fewer tokens, or one encoder for both."""

from hf_distill.students.budget import Budget, Suggestion, suggest_student
from hf_distill.students.from_teacher import student_from_teacher
from hf_distill.students.shared_encoder import share_encoder


__all__ = ["Budget", "Suggestion", "share_encoder", "student_from_teacher", "suggest_student"]

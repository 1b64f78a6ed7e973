"""Students made of their teachers."""

from hf_distill.students.shared_encoder import share_encoder


__all__ = ["share_encoder"]

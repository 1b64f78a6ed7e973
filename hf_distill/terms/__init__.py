"""What a student can imitate: one family a file."""

from hf_distill.terms.base import Term
from hf_distill.terms.boxes import BoxTerm
from hf_distill.terms.hard_labels import HardLabelTerm
from hf_distill.terms.soft_targets import SoftTargetTerm


__all__ = ["BoxTerm", "HardLabelTerm", "SoftTargetTerm", "Term"]

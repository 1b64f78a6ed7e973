"""What a student can imitate: one family a file."""

from hf_distill.terms.base import Term
from hf_distill.terms.decoupled import DecoupledTerm
from hf_distill.terms.hard_labels import HardLabelTerm
from hf_distill.terms.intra_class import IntraClassTerm
from hf_distill.terms.soft_targets import SoftTargetTerm
from hf_distill.terms.universal_logits import UniversalLogitTerm


__all__ = ["DecoupledTerm", "HardLabelTerm", "IntraClassTerm", "SoftTargetTerm", "Term", "UniversalLogitTerm"]

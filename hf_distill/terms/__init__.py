"""What a student can imitate: one family a file."""

from hf_distill.terms.attention import AttentionMapTerm, AttentionScoreTerm
from hf_distill.terms.base import Term
from hf_distill.terms.boxes import BoxTerm
from hf_distill.terms.contrastive import ContrastiveTerm
from hf_distill.terms.decoupled import DecoupledTerm
from hf_distill.terms.feature_maps import FlowTerm, SelectivityTerm
from hf_distill.terms.feature_terms import FeatureTerm
from hf_distill.terms.hard_labels import HardLabelTerm
from hf_distill.terms.hidden_states import HiddenStateTerm
from hf_distill.terms.intra_class import IntraClassTerm
from hf_distill.terms.relations import RelationTerm
from hf_distill.terms.row_relations import RowRelationTerm
from hf_distill.terms.soft_targets import SoftTargetTerm
from hf_distill.terms.universal_logits import UniversalLogitTerm
from hf_distill.terms.variational import VariationalTerm


__all__ = [
    "AttentionMapTerm",
    "AttentionScoreTerm",
    "BoxTerm",
    "ContrastiveTerm",
    "DecoupledTerm",
    "FeatureTerm",
    "FlowTerm",
    "HardLabelTerm",
    "HiddenStateTerm",
    "IntraClassTerm",
    "RelationTerm",
    "RowRelationTerm",
    "SelectivityTerm",
    "SoftTargetTerm",
    "Term",
    "UniversalLogitTerm",
    "VariationalTerm",
]

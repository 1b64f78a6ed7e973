"""Hidden states of unequal widths."""

import pytest

from hf_distill.terms import FlowTerm, HiddenStateTerm, VariationalTerm
from tests.terms.features import STUDENT, WIDE, learned


@pytest.mark.parametrize("kind", [HiddenStateTerm, FlowTerm, VariationalTerm])
def test_what_is_learned_is_named_after_the_term(kind):
    """So two terms of one kind have parts of their own."""
    names = {name: set(learned(kind("uniform").bound(name, STUDENT, WIDE))) for name in ("a.b", "c")}
    assert all(part.startswith("a_b_") for part in names["a.b"])
    assert names["a.b"] and not names["a.b"] & names["c"]

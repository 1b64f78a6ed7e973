"""Whatever sizes, dtypes and masks come, and whatever stands where nothing counts: what holds for every term."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_distill import terms
from hf_distill.terms import FeatureTerm, Term
from hf_distill.types import Positions, Signals, Unit
from tests.terms.features import STUDENT, TEACHER, learned, signals_of, where


TERMS = {
    "AttentionMapTerm": terms.AttentionMapTerm(),
    "AttentionScoreTerm": terms.AttentionScoreTerm(),
    "BoxTerm": terms.BoxTerm(),
    "ContrastiveTerm": terms.ContrastiveTerm(temperature=1.0, projection_size=4),
    "DecoupledTerm": terms.DecoupledTerm(),
    "FlowTerm": terms.FlowTerm(),
    "HardLabelTerm": terms.HardLabelTerm(),
    "HiddenStateTerm": terms.HiddenStateTerm("learned"),
    "IntraClassTerm": terms.IntraClassTerm(),
    "RelationTerm": terms.RelationTerm(relations=("attention", "values")),
    "RowRelationTerm": terms.RowRelationTerm(),
    "SelectivityTerm": terms.SelectivityTerm(),
    "SoftTargetTerm": terms.SoftTargetTerm(),
    "UniversalLogitTerm": terms.UniversalLogitTerm(),
    "VariationalTerm": terms.VariationalTerm(),
}
OF_FEATURES = [name for name, term in TERMS.items() if isinstance(term, FeatureTerm)]
OF_LOGITS = [name for name, term in TERMS.items() if not isinstance(term, FeatureTerm) and name != "HardLabelTerm"]
GARBAGE = st.sampled_from([float("nan"), float("inf"), float("-inf"), 1e4])
DTYPES = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])
SHARES = st.sampled_from([0.0, 0.4, 0.8, 1.0])

battery = settings(max_examples=30, deadline=None)


def test_every_term_has_a_row():
    kinds = {name for name in terms.__all__ if getattr(terms, name) not in (Term, FeatureTerm)}
    assert TERMS.keys() == kinds


def drawn_mask(rows, length, share, seed):
    return torch.rand(rows, length, generator=torch.Generator().manual_seed(seed)) < share


def spoilt(tensor, feature, real, fill):
    """A feature with something else where no real token is."""
    hidden = ~real
    if feature.kind == "hidden_states":
        return tensor.masked_fill(hidden[..., None], fill)
    if feature.kind == "attentions":
        return tensor.masked_fill(hidden[:, None, :, None] | hidden[:, None, None, :], fill)
    return tensor.masked_fill(hidden[:, None, :, None], fill)


@pytest.mark.parametrize("name", OF_FEATURES)
@battery
@given(
    rows=st.integers(1, 4), length=st.integers(1, 4), share=SHARES, dtype=DTYPES, fill=GARBAGE, seed=st.integers(0, 99)
)
def test_features_of_what_is_no_token_may_be_anything(name, rows, length, share, dtype, fill, seed):
    term = TERMS[name].bound("term", STUDENT, TEACHER)
    real, parts = drawn_mask(rows, length, share, seed), learned(term)
    read = {replace(feature, projection=None) for feature in term.requires.student_features}
    found = []
    for filling in (0.0, fill):
        own = signals_of(read, 1, rows, length, dtype=dtype).features
        leaves = {key: spoilt(value, key, real, filling).requires_grad_() for key, value in own.items()}
        features = {}
        for feature in term.requires.student_features:
            value = leaves[replace(feature, projection=None)]
            features[feature] = value if feature.projection is None else parts[feature.projection](value)
        theirs = signals_of(term.requires.teacher_features, 2, rows, length, dtype=dtype)
        theirs = replace(theirs, features={key: spoilt(v, key, real, filling) for key, v in theirs.features.items()})
        loss = term(Signals(torch.zeros(rows, 1), features=features), theirs, where(real, rows), 0.5)
        gradients = torch.autograd.grad(loss.total, list(leaves.values()), allow_unused=True)
        found.append((loss.total.detach(), *(torch.zeros(1) if each is None else each for each in gradients)))
    assert found[1][0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert all(each.isfinite().all() for each in found[1])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    if not real.any():
        assert all((each == 0).all() for each in found[1])


@pytest.mark.parametrize("name", OF_LOGITS)
@battery
@given(
    rows=st.integers(1, 4),
    length=st.integers(1, 4),
    num_classes=st.integers(1, 5),
    share=SHARES,
    dtype=DTYPES,
    fill=GARBAGE,
    seed=st.integers(0, 99),
)
def test_logits_of_what_does_not_count_may_be_anything(name, rows, length, num_classes, share, dtype, fill, seed):
    term, mask = TERMS[name], drawn_mask(rows, length, share, seed)
    num_classes += name in ("BoxTerm", "DecoupledTerm")  # "no object", and the classes beside the target
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, num_classes, (rows, length), generator=generator).where(mask, -100)
    positions = Positions(mask, {unit: mask.sum() for unit in Unit}, targets=targets)
    logits = torch.randn(2, rows, length, num_classes, generator=generator).mul(10).to(dtype)
    boxes = torch.rand(2, rows, length, 4, generator=generator).to(dtype)
    found = []
    for filling in (0.0, fill):
        ours, theirs = (
            [each.masked_fill(~mask[..., None], filling) for each in pair] for pair in zip(logits, boxes, strict=True)
        )
        leaf = ours[name == "BoxTerm"].requires_grad_()
        loss = term(Signals(ours[0], boxes=ours[1]), Signals(theirs[0], boxes=theirs[1]), positions, 0.5)
        found.append((loss.total.detach(), *torch.autograd.grad(loss.total, leaf)))
    assert found[1][0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert all(each.isfinite().all() for each in found[1])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert (found[1][1][~mask] == 0).all()
    if not mask.any():
        assert found[1][0] == 0

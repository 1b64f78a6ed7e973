"""What holds for every term that compares layers."""

import math
from dataclasses import replace

import pytest
import torch

from hf_distill import Objective
from hf_distill.errors import ConfigurationError, MissingTeacherError
from hf_distill.functional import cosine_distance, normalized_squared_distance
from hf_distill.layer_maps import LayerPair
from hf_distill.terms import (
    AttentionMapTerm,
    AttentionScoreTerm,
    ContrastiveTerm,
    FeatureTerm,
    FlowTerm,
    HiddenStateTerm,
    RelationTerm,
    SelectivityTerm,
    VariationalTerm,
)
from hf_distill.types import Anatomy, Feature, Positions, Signals, StackShape, Unit
from tests.terms.features import REAL, STUDENT, TEACHER, pair_of, where


TERMS = {
    "hidden": HiddenStateTerm(),
    "normalised": HiddenStateTerm(distance=normalized_squared_distance),
    "cosine": HiddenStateTerm(distance=cosine_distance),
    "first": HiddenStateTerm(pooled="first"),
    "last": HiddenStateTerm(pooled="last"),
    "mean": HiddenStateTerm(pooled="mean"),
    "embeddings": HiddenStateTerm([(0, 0)]),
    "relations": RelationTerm(),
    "attention relation": RelationTerm("uniform", ("attention", "values"), num_relation_heads=4),
    "scores": AttentionScoreTerm(),
    "maps": AttentionMapTerm(),
    "learned layers": HiddenStateTerm("learned"),
    "learned layers of rows": HiddenStateTerm("learned", cosine_distance, "mean"),
    "flow": FlowTerm(),
    "selectivity": SelectivityTerm("uniform"),
    "variational": VariationalTerm(),
    "contrastive": ContrastiveTerm(temperature=1.0, projection_size=4),
    "contrastive first": ContrastiveTerm("uniform", temperature=1.0, projection_size=4, pooled="first"),
}
PER_ROW = (
    "first",
    "last",
    "mean",
    "learned layers of rows",
    "flow",
    "selectivity",
    "contrastive",
    "contrastive first",
)
CONTRASTIVE = ("contrastive", "contrastive first")
NOT_ZERO = (*CONTRASTIVE, "variational", "learned layers", "learned layers of rows")
"""Those that are not 0 where student and teacher agree, or that nothing agrees with."""


def bound(name):
    return TERMS[name].bound("term", STUDENT, TEACHER)


def changed(signals, function):
    return replace(signals, features={feature: function(feature, t) for feature, t in signals.features.items()})


def as_teacher(term, student):
    """A teacher whose layers are those of the student that imitate them."""
    ours = {(pair.teacher, kind): (pair.student, kind) for pair in term.layers for kind in term.kinds}
    features = {
        feature: student.features[Feature(feature.kind, ours[feature.layer, feature.kind][0])]
        for feature in term.requires.teacher_features
    }
    return replace(student, features=features)


def on_tokens(function):
    """Applied to the axis of tokens, wherever a kind of feature has it. What is learned has none."""

    def apply(feature, tensor):
        if tensor.ndim < 3:
            return tensor
        axes = {"hidden_states": (1,), "attentions": (2, 3)}.get(feature.kind, (2,))
        for axis in axes:
            tensor = function(tensor, axis)
        return tensor

    return apply


@pytest.mark.parametrize("name", TERMS)
def test_a_sum_with_its_count(name):
    term = bound(name)
    loss = term(*pair_of(term), where(), 0.0)
    assert (loss.total.ndim, loss.count.ndim, loss.total.dtype) == (0, 0, torch.float32)
    assert loss.total > 0
    assert loss.count == (3 if name in PER_ROW else REAL.sum())
    assert term.unit == (Unit.ROW if name in PER_ROW else Unit.TOKEN)


@pytest.mark.parametrize("name", TERMS)
def test_requires_is_truthful(name):
    """It reads what it declares, and all of that; and what it declares as learned it learns."""
    term = bound(name)
    student, teacher = pair_of(term)
    assert term.requires.teacher and term.requires.student_features
    projections = {feature.projection for feature in term.requires.student_features} - {None}
    assert projections == term.learned_parts().keys()
    for feature in term.requires.student_features:
        less = {other: tensor for other, tensor in student.features.items() if other != feature}
        with pytest.raises(KeyError):
            term(replace(student, features=less), teacher, where(), 0.0)


@pytest.mark.parametrize("name", [name for name in TERMS if name not in NOT_ZERO])
def test_zero_where_student_and_teacher_agree(name):
    term = bound(name)
    student, _ = pair_of(term)
    assert term(student, as_teacher(term, student), where(), 0.0).total.item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_padding_is_never_read(name):
    """NaN at padding changes neither the value nor, by a bit, a gradient, which there is 0."""
    term = bound(name)
    results = []
    for fill in (0.0, math.nan):
        students, teachers = pair_of(term)

        def spoilt(feature, tensor, fill=fill):
            axes = {"hidden_states": [1], "attentions": [2, 3]}.get(feature.kind, [2])
            for axis in axes if tensor.ndim > 2 else []:
                shape = [len(REAL)] + [1] * (tensor.ndim - 1)
                shape[axis] = REAL.shape[1]
                tensor = tensor.masked_fill(~REAL.view(shape), fill)
            return tensor.requires_grad_()

        student, teacher = changed(students, spoilt), changed(teachers, lambda f, t: spoilt(f, t).detach())
        loss = term(student, teacher, where(), 0.0)
        loss.total.backward()
        results.append((loss.total, [tensor.grad for tensor in student.features.values()]))
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(one, other) for one, other in zip(results[0][1], results[1][1], strict=True))
    assert any(gradient.norm() > 0 for gradient in results[0][1])


@pytest.mark.parametrize("name", TERMS)
def test_further_padding_changes_nothing(name):
    term = bound(name)
    student, teacher = pair_of(term)
    straight = term(student, teacher, where(), 0.0)

    def pad(tensor, axis):
        return torch.cat((tensor, tensor.narrow(axis, 0, 2)), dim=axis)

    longer = where(torch.nn.functional.pad(REAL, (0, 2)))
    padded = term(changed(student, on_tokens(pad)), changed(teacher, on_tokens(pad)), longer, 0.0)
    assert padded.count == straight.count
    assert torch.allclose(padded.total, straight.total, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in TERMS if name not in CONTRASTIVE])
def test_rows_are_summed(name):
    """A batch is the sum of its rows, each cut to its real tokens, in any order."""
    term = bound(name)
    student, teacher = pair_of(term)
    whole = term(student, teacher, where(), 0.0)
    total = count = 0
    for row in (2, 0, 1):
        kept = REAL[row].nonzero().flatten()

        def cut(feature, tensor, row=row, kept=kept):
            rows = tensor if tensor.ndim < 3 else tensor[row : row + 1]
            return on_tokens(lambda t, axis: t.index_select(axis, kept))(feature, rows)

        single = where(torch.ones(1, len(kept), dtype=torch.bool), rows=1)
        loss = term(changed(student, cut), changed(teacher, cut), single, 0.0)
        total, count = total + loss.total, count + loss.count
    assert count == whole.count
    assert torch.allclose(total, whole.total, rtol=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_nothing_counted_gives_zero_and_no_gradient(name):
    term = bound(name)
    student, teacher = pair_of(term)
    student = changed(student, lambda feature, tensor: tensor.requires_grad_())
    nothing = where(torch.zeros_like(REAL))
    loss = term(student, changed(teacher, lambda feature, tensor: tensor * math.nan), nothing, 0.0)
    loss.total.backward()
    assert loss.total.item() == 0.0
    assert all(tensor.grad.eq(0).all() for tensor in student.features.values())


@pytest.mark.parametrize("name", TERMS)
def test_rows_of_one_length_are_units_themselves(name):
    """Of images and sounds, all positions count, and a row is the mean of its own."""
    term = bound(name)
    student, teacher = pair_of(term)
    rows, tokens = (term(student, teacher, where(real), 0.0) for real in (None, torch.ones_like(REAL)))
    assert rows.count == 3
    assert torch.allclose(rows.total / rows.count, tokens.total / tokens.count, rtol=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_bfloat16_is_close_to_float32(name):
    term = bound(name)
    low = pair_of(term, dtype=torch.bfloat16)
    high = [changed(signals, lambda feature, tensor: tensor.float()) for signals in low]
    losses = [term(*signals, where(), 0.0) for signals in (low, high)]
    assert losses[0].total.dtype == torch.float32
    assert torch.allclose(losses[0].total, losses[1].total, rtol=1e-4)


@pytest.mark.parametrize("name", TERMS)
def test_the_gradient_reaches_the_student_only(name):
    term = bound(name)
    student, teacher = pair_of(term)
    student = changed(student, lambda feature, tensor: tensor.requires_grad_())
    term(student, teacher, where(), 0.0).total.backward()
    assert all(tensor.grad.norm() > 0 for tensor in student.features.values())


@pytest.mark.parametrize("name", TERMS)
def test_a_term_that_is_bound_to_no_models(name):
    assert TERMS[name].requires.student_features == frozenset()
    with pytest.raises(ConfigurationError, match=f"{type(TERMS[name]).__name__} compares layers .* bound to none"):
        TERMS[name](Signals(torch.zeros(1)), Signals(torch.zeros(1)), where(), 0.0)


@pytest.mark.parametrize("name", TERMS)
def test_layers_are_blended_by_hidden_states_alone(name):
    if not isinstance(TERMS[name], HiddenStateTerm):
        with pytest.raises(ConfigurationError, match=f"'learned' blends .* {type(TERMS[name]).__name__} cannot"):
            replace(TERMS[name], layer_map="learned")


@pytest.mark.parametrize("teacher", [None, Signals(torch.zeros(1))])
def test_a_teacher_without_features(teacher):
    given = "teacher=None" if teacher is None else r"signals with the features \[\]"
    with pytest.raises(MissingTeacherError, match=f"reads features inside of the teacher, and got {given}"):
        bound("hidden")(Signals(torch.zeros(1)), teacher, where(), 0.0)


@pytest.mark.parametrize("layer_map", ["unifrom", [], [(1, 2, 3)], [(0.5, 1)]])
def test_what_is_no_layer_map(layer_map):
    with pytest.raises(ConfigurationError, match="layer_map must"):
        HiddenStateTerm(layer_map)


def test_layers_are_those_of_the_side():
    both = Anatomy("Both", {"encoder": StackShape(6, 8, 2, 8), "decoder": StackShape(2, 8, 2, 8)})
    encoder = HiddenStateTerm("last", side="encoder").bound("x", both, both)
    decoder = HiddenStateTerm("last", side="decoder").bound("x", both, both)
    assert (encoder.layers, encoder.unit) == ((LayerPair(6, 6),), Unit.TOKEN)
    assert (decoder.layers, decoder.unit) == ((LayerPair(2, 2),), Unit.DECODER_TOKEN)
    assert decoder.requires.student_features == {Feature("hidden_states", 2, "decoder")}


def test_an_objective_binds_its_terms():
    objective = Objective({"inner": (1.0, Objective({"hidden": (1.0, HiddenStateTerm())}))})
    assert objective.compares_layers
    fitted = objective.bound(STUDENT, TEACHER)
    assert fitted.requires.teacher_features == {Feature("hidden_states", 2), Feature("hidden_states", 4)}
    assert objective.requires.teacher_features == frozenset()
    assert isinstance(fitted.terms["inner/hidden"].term, FeatureTerm)
    assert isinstance(where(), Positions)

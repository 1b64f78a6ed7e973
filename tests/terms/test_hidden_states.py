"""Hidden states are compared as the formula says, through a learned map where widths differ."""

import pytest
import torch

from hf_distill.errors import ConfigurationError
from hf_distill.functional import cosine_distance, normalized_squared_distance
from hf_distill.layer_maps import LayerPair
from hf_distill.terms import HiddenStateTerm
from hf_distill.types import Feature, Signals
from tests.terms.features import REAL, STUDENT, TEACHER, WIDE, learned, pair_of, signals_of, where


def states(term, student, teacher):
    for ours, theirs in term.layers:
        yield student.features[Feature("hidden_states", ours)], teacher.features[Feature("hidden_states", theirs)]


def sides(term):
    return signals_of(term.requires.student_features, 1), signals_of(term.requires.teacher_features, 2)


def test_the_mean_over_layers_of_the_mean_squared_difference():
    term = HiddenStateTerm([(1, 1), (2, 4), (0, 0)]).bound("h", STUDENT, TEACHER)
    student, teacher = sides(term)
    expected = 0.0
    for row, token in REAL.nonzero().tolist():
        for ours, theirs in states(term, student, teacher):
            pairs = zip(ours[row, token].tolist(), theirs[row, token].tolist(), strict=True)
            expected += sum((x - y) ** 2 for x, y in pairs) / 8 / 3
    assert term(student, teacher, where(), 0.0).total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("pooled, index", [("first", 0), ("last", -1)])
def test_the_first_and_the_last_real_token(pooled, index):
    """Wherever the padding is: row 2 has some on both sides. By PKD's equation 7, of normalised vectors."""
    term = HiddenStateTerm("skip", normalized_squared_distance, pooled).bound("h", STUDENT, TEACHER)
    student, teacher = sides(term)
    assert term.layers == (LayerPair(1, 2),)
    expected = 0.0
    for row in range(3):
        token = REAL[row].nonzero().flatten()[index]
        ((ours, theirs),) = [(mine[row, token], yours[row, token]) for mine, yours in states(term, student, teacher)]
        lengths = [sum(x * x for x in vector.tolist()) ** 0.5 for vector in (ours, theirs)]
        pairs = zip(ours.tolist(), theirs.tolist(), strict=True)
        expected += sum((x / lengths[0] - y / lengths[1]) ** 2 for x, y in pairs)
    assert term(student, teacher, where(), 0.0).total.item() == pytest.approx(expected, rel=1e-5)


def test_the_mean_of_the_real_tokens():
    term = HiddenStateTerm("last", pooled="mean").bound("h", STUDENT, TEACHER)
    student, teacher = sides(term)
    expected = 0.0
    for row in range(3):
        ((ours, theirs),) = [
            [sum(side[row, token] for token in REAL[row].nonzero().flatten()) / REAL[row].sum() for side in both]
            for both in states(term, student, teacher)
        ]
        expected += ((ours - theirs) ** 2).sum().item() / 8
    assert term(student, teacher, where(), 0.0).total.item() == pytest.approx(expected, rel=1e-5)


def test_no_map_is_learned_between_equal_widths():
    term = HiddenStateTerm().bound("h", STUDENT, TEACHER)
    assert term.learned_parts() == {}
    assert all(feature.projection is None for feature in term.requires.student_features)


def test_a_map_for_each_pair_of_unequal_widths():
    term = HiddenStateTerm([(1, 2), (1, 4), (-1, -1)]).bound("a.b", STUDENT, WIDE)
    parts = term.learned_parts()
    assert list(parts) == ["a_b_1_2", "a_b_1_4", "a_b_2_4"]
    assert all((part.in_features, part.out_features) == (8, 12) for part in parts.values())
    assert {feature.projection for feature in term.requires.student_features} == set(parts)
    assert all(feature.projection is None for feature in term.requires.teacher_features)


def test_parts_are_new_each_time():
    term = HiddenStateTerm("last").bound("h", STUDENT, WIDE)
    assert term.learned_parts()["h_2_4"] is not term.learned_parts()["h_2_4"]


def test_another_pooling():
    with pytest.raises(
        ConfigurationError, match=r"pooled must be one of \(None, 'first', 'last', 'mean'\), got 'max'"
    ):
        HiddenStateTerm(pooled="max")


def test_a_row_without_tokens_is_at_distance_0():
    term = HiddenStateTerm("last", pooled="mean").bound("h", STUDENT, TEACHER)
    student, teacher = sides(term)
    real = REAL.clone()
    real[1] = False
    less = term(student, teacher, where(real), 0.0)
    only = [Signals(s.logits, features={f: t[[0, 2]] for f, t in s.features.items()}) for s in (student, teacher)]
    assert torch.allclose(less.total, term(*only, where(REAL[[0, 2]]), 0.0).total)


# ---- Learned layer maps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("teacher, width", [(TEACHER, 8), (WIDE, 12)])
def test_each_layer_learns_from_a_blend_of_all_in_loops(teacher, width):
    """Mean over m of the mean squared difference of W_m s_m and Σ_n softmax(a_m)_n t_n."""
    term = HiddenStateTerm("learned").bound("h", STUDENT, teacher)
    parts = learned(term)
    assert list(parts) == (["h_1_layers", "h_2_layers"] if width == 8 else ["h_1", "h_1_layers", "h_2", "h_2_layers"])
    for layer in (1, 2):
        parts[f"h_{layer}_layers"].values.data = torch.linspace(-1.0, 1.5 * layer, 4)
    plain = signals_of({Feature("hidden_states", layer) for layer in (1, 2)}, 1)
    theirs = signals_of(term.requires.teacher_features, 2, width=width)
    expected = 0.0
    for row, token in REAL.nonzero().tolist():
        for layer in (1, 2):
            state = plain.features[Feature("hidden_states", layer)][row, token]
            if width > 8:
                state = parts[f"h_{layer}"].weight @ state + parts[f"h_{layer}"].bias
            powers = torch.exp(parts[f"h_{layer}_layers"].values).tolist()
            layers = [theirs.features[Feature("hidden_states", n)][row, token].tolist() for n in (1, 2, 3, 4)]
            blend = [sum(p * t[d] for p, t in zip(powers, layers, strict=True)) / sum(powers) for d in range(width)]
            expected += sum((x - y) ** 2 for x, y in zip(state.tolist(), blend, strict=True)) / width / 2
    assert term(pair_of(term, parts)[0], theirs, where(), 0.0).total.item() == pytest.approx(expected, rel=1e-5)


def test_a_blend_starts_at_the_uniform_map():
    """Of 2 layers and 4: layers 2 and 4, each next to a neighbour by e⁻¹."""
    parts = learned(HiddenStateTerm("learned").bound("h", STUDENT, TEACHER))
    assert parts["h_1_layers"].values.tolist() == [-1.0, 0.0, -1.0, -2.0]
    assert parts["h_2_layers"].values.tolist() == [-3.0, -2.0, -1.0, 0.0]


def test_a_blend_that_is_all_of_one_layer():
    """It is at the distance of that layer."""
    term = HiddenStateTerm("learned", cosine_distance).bound("h", STUDENT, TEACHER)
    parts = learned(term)
    for layer, chosen in ((1, 3), (2, 4)):
        parts[f"h_{layer}_layers"].values.data = torch.tensor([50.0 * (n == chosen) for n in (1, 2, 3, 4)])
    student, teacher = pair_of(term, parts)
    explicit = HiddenStateTerm([(1, 3), (2, 4)], cosine_distance).bound("h", STUDENT, TEACHER)
    assert torch.allclose(
        term(student, teacher, where(), 0.0).total, explicit(student, teacher, where(), 0.0).total, rtol=1e-6
    )


def test_gradients_of_a_blend():
    term = HiddenStateTerm("learned").bound("h", STUDENT, TEACHER)
    parts = {name: part.double() for name, part in learned(term).items()}
    student, teacher = pair_of(term, parts, dtype=torch.float64)
    ours, theirs = term.comparisons[0]
    inputs = [student.features[feature].requires_grad_() for feature in ours]
    given = [teacher.features[feature] for feature in theirs]
    assert torch.autograd.gradcheck(lambda *features: term.distances(list(features), given, REAL), inputs)

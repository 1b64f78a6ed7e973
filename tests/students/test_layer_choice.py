"""Which layers a rule keeps, from its definition."""

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_distill.students.layer_choice import chosen_layers, layer_faults


SIZES = [(kept, layers) for layers in (1, 2, 5, 6, 12, 22, 48) for kept in range(1, layers + 1)]


@pytest.mark.parametrize(
    ("rule", "kept", "layers", "expected"),
    [
        ("uniform", 6, 12, (0, 2, 4, 7, 9, 11)),  # DistilBERT's initialisation
        ("uniform", 3, 12, (0, 6, 11)),  # Shleifer and Rush, section 3.2
        ("uniform", 1, 12, (0,)),
        ("alternate", 6, 12, (0, 2, 4, 6, 8, 10)),
        ("alternate", 4, 12, (0, 3, 6, 9)),
        ("first", 2, 6, (0, 1)),
        ("last", 2, 6, (4, 5)),
    ],
)
def test_published_choices(rule, kept, layers, expected):
    assert chosen_layers(rule, kept, layers) == expected


@pytest.mark.parametrize(("kept", "layers"), SIZES)
def test_rules_by_their_definition(kept, layers):
    for rule in ("uniform", "alternate", "first", "last"):
        chosen = chosen_layers(rule, kept, layers)
        assert len(chosen) == kept
        assert list(chosen) == sorted(set(chosen))
        assert set(chosen) <= set(range(layers))
    uniform = chosen_layers("uniform", kept, layers)
    if kept > 1:
        assert uniform == tuple(floor(Fraction(i * (layers - 1), kept - 1) + Fraction(1, 2)) for i in range(kept))
        assert (uniform[0], uniform[-1]) == (0, layers - 1)


@pytest.mark.parametrize(
    ("layers", "kept", "expected"),
    [
        ("uniform", None, []),
        ([0, 5], None, []),
        ("uniform", 7, ["num_hidden_layers=7, but the teacher has 6: take 1 to 6"]),
        ("uniform", 0, ["num_hidden_layers=0, but the teacher has 6: take 1 to 6"]),
        (
            "best",
            2,
            ["layers='best' is no rule: choose 'uniform', 'alternate', 'first', 'last', or list the layers from 0 on"],
        ),
        ("last", None, ["layers='last' says which but not how many: pass `num_hidden_layers=`"]),
        ([], None, ["layers=[] keeps none of the teacher's 6: name at least one"]),
        ([-1, 2], None, ["layers=[-1, 2] names [-1], but the teacher has 0 to 5, counted from 0"]),
        ([3, 3], None, ["layers=[3, 3] must ascend without repeats, as [3] does"]),
        ([3], 2, ["num_hidden_layers=2 and 1 layers [3] disagree: leave one of them out"]),
    ],
)
def test_faults_name_both_values(layers, kept, expected):
    assert layer_faults("", layers, kept, 6) == expected


@given(st.integers(1, 300), st.integers(1, 300))
def test_rules_of_any_numbers_of_layers(kept, layers):
    kept, layers = sorted((kept, layers))
    assert chosen_layers("first", kept, layers) == tuple(range(kept))
    assert chosen_layers("last", kept, layers) == tuple(range(layers - kept, layers))
    assert chosen_layers("alternate", kept, layers) == tuple(floor(Fraction(i * layers, kept)) for i in range(kept))
    uniform = chosen_layers("uniform", kept, layers)
    assert len(uniform) == len(set(uniform)) == kept and list(uniform) == sorted(uniform)
    if kept > 1:
        step = Fraction(layers - 1, kept - 1)
        assert all(abs(layer - i * step) <= Fraction(1, 2) for i, layer in enumerate(uniform))
    for rule in ("first", "last", "alternate", "uniform"):
        assert layer_faults("", rule, kept, layers) == []
        assert layer_faults("", chosen_layers(rule, kept, layers), kept, layers) == []


@given(st.lists(st.integers(-3, 9), max_size=6), st.none() | st.integers(-1, 9))
def test_layers_are_right_where_they_ascend_within_the_teacher(layers, kept):
    are_right = bool(layers) and all(0 <= layer < 6 for layer in layers) and sorted(set(layers)) == layers
    assert (layer_faults("", layers, kept, 6) == []) == (are_right and kept in (None, len(layers)))

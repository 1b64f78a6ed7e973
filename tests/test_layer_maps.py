"""Layers are paired as papers pair them, and by likeness."""

from fractions import Fraction
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_distill.errors import ConfigurationError
from hf_distill.functional import linear_cka
from hf_distill.layer_maps import layer_pairs, most_similar_layers


@pytest.mark.parametrize(
    "layer_map, ours, theirs, expected",
    [
        ("uniform", 4, 12, [(1, 3), (2, 6), (3, 9), (4, 12)]),  # TinyBERT
        ("uniform", 6, 12, [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10), (6, 12)]),
        ("uniform", 3, 4, [(1, 1), (2, 3), (3, 4)]),
        ("uniform", 2, 2, [(1, 1), (2, 2)]),
        ("uniform", 1, 5, [(1, 5)]),
        ("skip", 6, 12, [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10)]),  # PKD-Skip
        ("top", 6, 12, [(1, 7), (2, 8), (3, 9), (4, 10), (5, 11)]),  # PKD-Last
        ("skip", 3, 12, [(1, 4), (2, 8)]),
        ("top", 3, 12, [(1, 10), (2, 11)]),
        ("last", 3, 12, [(3, 12)]),
        ("last", 12, 3, [(12, 3)]),
        ([(0, 0), (1, 4), (-1, -1), (-2, -12)], 3, 12, [(0, 0), (1, 4), (3, 12), (2, 1)]),
        (((-4, -13),), 3, 12, [(0, 0)]),
    ],
)
def test_maps(layer_map, ours, theirs, expected):
    assert list(layer_pairs(layer_map, ours, theirs)) == expected


@pytest.mark.parametrize("ours", range(1, 13))
@pytest.mark.parametrize("theirs", [12, 13, 24])
def test_a_uniform_map_ascends_to_the_last_layer(ours, theirs):
    teachers = [pair.teacher for pair in layer_pairs("uniform", ours, theirs)]
    assert teachers == sorted(set(teachers))
    assert teachers[0] >= 1 and teachers[-1] == theirs


@pytest.mark.parametrize("layer_map", ["uniform", "skip", "top"])
def test_a_student_that_is_deeper(layer_map):
    with pytest.raises(
        ConfigurationError, match=f"student has 4 layers and the teacher 3, so layer_map='{layer_map}'"
    ):
        layer_pairs(layer_map, 4, 3)


@pytest.mark.parametrize("layer_map", ["skip", "top"])
def test_a_student_of_one_layer_has_none_before_the_last(layer_map):
    with pytest.raises(ConfigurationError, match="the student has only 1, the teacher 12"):
        layer_pairs(layer_map, 1, 12)


@pytest.mark.parametrize(
    "pair, message",
    [
        ((4, 1), "layer 4 of the student, which has the layers 0 to 3"),
        ((1, 13), "layer 13 of the teacher, which has the layers 0 to 12"),
        ((-5, 1), "layer -5 of the student"),
    ],
)
def test_a_layer_that_is_not_there(pair, message):
    with pytest.raises(ConfigurationError, match=message):
        layer_pairs([pair], 3, 12)


def test_blocks_have_no_layer_0():
    with pytest.raises(ConfigurationError, match="layer 0 of the student, which has the layers 1 to 3"):
        layer_pairs([(0, 1)], 3, 12, first=1)


def test_what_is_no_map():
    with pytest.raises(
        ConfigurationError, match=r"must be one of 'uniform', 'skip', 'top', 'last', 'learned' or pairs .* 'even'"
    ):
        layer_pairs("even", 3, 12)


def test_the_most_similar_layers_are_the_best_of_all_ascending_maps():
    generator = torch.Generator().manual_seed(0)
    student = [torch.randn(4, 9, 3, generator=generator) for _ in range(3)]
    teacher = [torch.randn(4, 9, 5, generator=generator) for _ in range(6)]
    mask = torch.rand(4, 9, generator=generator) < 0.8
    sums = {
        layers: sum(linear_cka(s, teacher[n], mask=mask).item() for s, n in zip(student, layers, strict=True))
        for layers in combinations(range(6), 3)
    }
    found = most_similar_layers(student, teacher, mask=mask)
    assert [pair.student for pair in found] == [0, 1, 2]
    assert tuple(pair.teacher for pair in found) == max(sums, key=sums.get)


def test_more_layers_than_the_teacher_has():
    layers = [torch.randn(2, 3, 4)] * 3
    with pytest.raises(ConfigurationError, match="student_features hold 3 layers and teacher_features 2"):
        most_similar_layers(layers, layers[:2])


def test_a_learned_map_pairs_all_blocks():
    assert layer_pairs("learned", 2, 3) == ((1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3))
    assert layer_pairs("learned", 3, 1) == ((1, 1), (2, 1), (3, 1))


depths = st.integers(1, 200)


@settings(deadline=None)
@given(st.sampled_from(["uniform", "skip", "top", "last", "learned"]), depths, depths, st.sampled_from([0, 1]))
def test_named_maps_by_their_definition(name, ours, theirs, first):
    """Of any depths. No named map has layer 0, which is no block but what the first one reads."""
    leaves_out_the_last = name in ("skip", "top")
    if name in ("uniform", "skip", "top") and (ours > theirs or (leaves_out_the_last and ours == 1)):
        with pytest.raises(ConfigurationError, match=f"the student has .*{ours}"):
            layer_pairs(name, ours, theirs, first=first)
        return
    pairs = layer_pairs(name, ours, theirs, first=first)
    assert all(1 <= student <= ours and 1 <= teacher <= theirs for student, teacher in pairs)
    students = range(1, ours + (not leaves_out_the_last))
    if name == "last":
        assert pairs == ((ours, theirs),)
    elif name == "learned":
        assert list(pairs) == [(m, n) for m in range(1, ours + 1) for n in range(1, theirs + 1)]
    elif name == "top":
        assert list(pairs) == [(m, m + theirs - ours) for m in students]
    else:
        assert [pair.student for pair in pairs] == list(students)
        assert all(abs(pair.teacher - Fraction(pair.student * theirs, ours)) <= Fraction(1, 2) for pair in pairs)
    if name not in ("last", "learned"):
        teachers = [pair.teacher for pair in pairs]
        assert teachers == sorted(set(teachers))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=4), st.sampled_from([0, 1]))
def test_pairs_by_their_definition(pairs, first):
    """Layers are counted from `first`, and below 0 from the last one on."""
    ours, theirs = list(range(first, 5)), list(range(first, 8))
    try:
        expected = [(ours[m if m < 0 else m - first], theirs[n if n < 0 else n - first]) for m, n in pairs]
        is_there = all(m >= first or m < 0 for m, _ in pairs) and all(n >= first or n < 0 for _, n in pairs)
    except IndexError:
        is_there = False
    if is_there:
        assert list(layer_pairs(pairs, 4, 7, first=first)) == expected
    else:
        with pytest.raises(ConfigurationError, match=f"which has the layers {first} to"):
            layer_pairs(pairs, 4, 7, first=first)


@pytest.mark.parametrize(
    "layer_map", [3, None, b"ab", [], [1], [(1,)], [(1, 2, 3)], [("1", "2")], [(True, 1)], {1: 2}]
)
def test_what_holds_no_pairs(layer_map):
    with pytest.raises(ConfigurationError, match="layer_map must hold at least one pair"):
        layer_pairs(layer_map, 3, 12)

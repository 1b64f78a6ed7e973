"""Flows and selectivity, by the equations of their papers, of the tokens of a row."""

import math

import pytest
import torch

from hf_distill import FlowTerm, SelectivityTerm, recipes
from hf_distill.errors import ConfigurationError
from hf_distill.terms import HardLabelTerm
from hf_distill.types import Feature, Unit
from tests.terms.features import REAL, STUDENT, TEACHER, WIDE, learned, pair_of, signals_of, where


def states(signals, layer, row, projection=None):
    """The states of the real tokens of a row, as lists."""
    return signals.features[Feature("hidden_states", layer, None, projection)][row][REAL[row]].tolist()


def flow(earlier, later):
    """G_cd: the mean over tokens of the product of a feature of one layer and a feature of the other."""
    n = len(earlier)
    return [
        [sum(e[c] * s[d] for e, s in zip(earlier, later, strict=True)) / n for d in range(len(later[0]))]
        for c in range(len(earlier[0]))
    ]


def squared_distance(one, other):
    return sum((x - y) ** 2 for row in zip(one, other, strict=True) for x, y in zip(*row, strict=True))


@pytest.mark.parametrize("other, width", [(TEACHER, 8), (WIDE, 12)])
def test_flows_from_each_layer_to_the_next(other, width):
    """The squared distance of the matrices, and the mean over the two steps between three layers."""
    term = FlowTerm([(0, 0), (1, 2), (2, 4)]).bound("f", STUDENT, other)
    student, _ = pair_of(term)
    teacher = signals_of(term.requires.teacher_features, 2, width=width)
    maps = [f"f_{pair.student}_{pair.teacher}" if width > 8 else None for pair in term.layers]
    assert set(learned(term)) == set(maps) - {None}
    expected = 0.0
    for row in range(3):
        for step in range(2):
            pairs = term.layers[step : step + 2]
            ours = [states(student, pair.student, row, maps[step + i]) for i, pair in enumerate(pairs)]
            theirs = [states(teacher, pair.teacher, row) for pair in pairs]
            expected += squared_distance(flow(*ours), flow(*theirs)) / 2
    loss = term(student, teacher, where(), 0.0)
    assert (loss.total.item(), loss.count.item()) == (pytest.approx(expected, rel=1e-5), 3)


def test_a_flow_needs_two_layers():
    with pytest.raises(ConfigurationError, match=r"layer_map='last' has only LayerPair\(student=2, teacher=4\) for"):
        FlowTerm("last").bound("f", STUDENT, TEACHER)


def kernel(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True)) ** 2


def test_selectivity_in_loops():
    """MMD² = mean k(t, t') + mean k(s, s') − 2 mean k(t, s) of all units' normalised patterns; widths 8 and 12."""
    term = SelectivityTerm().bound("n", STUDENT, WIDE)
    student, _ = pair_of(term)
    teacher = signals_of(term.requires.teacher_features, 2, width=12)
    expected = 0.0
    for row in range(3):
        patterns = []
        for signals, layer in ((student, 2), (teacher, 4)):
            units = list(zip(*states(signals, layer, row), strict=True))
            patterns.append([[x / math.sqrt(sum(y * y for y in unit)) for x in unit] for unit in units])
        s, t = patterns
        expected += sum(kernel(a, b) for a in t for b in t) / 144 + sum(kernel(a, b) for a in s for b in s) / 64
        expected -= 2 * sum(kernel(a, b) for a in t for b in s) / 96
    loss = term(student, teacher, where(), 0.0)
    assert term.unit == Unit.ROW and term.learned_parts() == {}
    assert (loss.total.item(), loss.count.item()) == (pytest.approx(expected, rel=1e-5), 3)


@pytest.mark.parametrize("term", [FlowTerm([(0, 0), (2, 4)]), SelectivityTerm()])
def test_gradients(term):
    term = term.bound("t", STUDENT, TEACHER)
    student, teacher = pair_of(term, dtype=torch.float64)
    ((ours, theirs),) = term.comparisons
    inputs = [student.features[feature].requires_grad_() for feature in ours]
    given = [teacher.features[feature] for feature in theirs]
    assert torch.autograd.gradcheck(lambda *features: term.distances(list(features), given, REAL), inputs)


def test_the_recipe():
    objective = recipes.nst(labels=0.5, weight=2.0)
    assert {name: weighted.term for name, weighted in objective.terms.items()} == {
        "labels": HardLabelTerm(),
        "selectivity": SelectivityTerm(),
    }
    assert objective.weights(0.0) == {"labels": 0.5, "selectivity": 2.0}
    assert recipes.nst().weights(0.0) == {"labels": 1.0, "selectivity": 50.0}

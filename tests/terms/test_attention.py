"""Attention is compared head by head, before and after the softmax."""

import math

import pytest

from hf_distill.errors import ConfigurationError
from hf_distill.terms import AttentionMapTerm, AttentionScoreTerm
from hf_distill.types import Anatomy, Feature, StackShape
from tests.terms.features import REAL, STUDENT, TEACHER, WIDE, signals_of, where


def sides(term):
    return signals_of(term.requires.student_features, 1), signals_of(term.requires.teacher_features, 2)


def test_scores():
    """TinyBERT's equation 7, with the mean over the real tokens and over the layers."""
    term = AttentionScoreTerm([(1, 2), (2, 4)]).bound("a", STUDENT, TEACHER)
    student, teacher = sides(term)
    expected = 0.0
    for row, token in REAL.nonzero().tolist():
        real = REAL[row].nonzero().flatten().tolist()
        for layers in term.layers:
            for head in range(2):
                scores = [
                    [
                        (
                            signals.features[Feature("queries", layer)][row, head, token]
                            @ signals.features[Feature("keys", layer)][row, head, other]
                        ).item()
                        / math.sqrt(4)
                        for other in real
                    ]
                    for signals, layer in zip((student, teacher), layers, strict=True)
                ]
                expected += sum((x - y) ** 2 for x, y in zip(*scores, strict=True)) / len(real) / 2 / 2
    assert term(student, teacher, where(), 0.0).total.item() == pytest.approx(expected, rel=1e-5)


def test_maps():
    term = AttentionMapTerm("last").bound("a", STUDENT, TEACHER)
    student, teacher = sides(term)
    expected = 0.0
    for row, token in REAL.nonzero().tolist():
        for head in range(2):
            for other in REAL[row].nonzero().flatten().tolist():
                q = student.features[Feature("attentions", 2)][row, head, token, other].item()
                p = teacher.features[Feature("attentions", 4)][row, head, token, other].item()
                expected += p * math.log(p / q) / 2
    assert term(student, teacher, where(), 0.0).total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("term", [AttentionMapTerm(), AttentionScoreTerm()])
def test_another_number_of_heads(term):
    with pytest.raises(ConfigurationError, match="Student has 2 attention heads and the teacher Wide 3"):
        term.bound("a", STUDENT, WIDE)


def test_heads_that_are_not_known_are_not_said_to_differ():
    """Maps have them all the same, and queries and keys are refused when they are to be read."""
    unknown = Anatomy("Unknown", {"": StackShape(2, 8)})
    assert AttentionMapTerm().bound("a", unknown, TEACHER).layers
    assert AttentionMapTerm("last").bound("a", STUDENT, unknown).layers

"""Relations are compared by the equations of MiniLMv2, from the last layers' queries, keys and values."""

import pytest
import torch

from hf_distill.errors import ConfigurationError
from hf_distill.terms import RelationTerm
from hf_distill.types import Anatomy, Feature, StackShape
from tests.terms.features import REAL, STUDENT, TEACHER, WIDE, signals_of, where


def relation(signals, first, second, layer, row, token, head, num_heads):
    """One row of one relation head's matrix, over the real tokens."""
    joined = [
        torch.cat(list(signals.features[Feature(kind, layer)][row]), dim=-1).double() for kind in (first, second)
    ]
    width = joined[0].shape[-1] // num_heads
    parts = [each[:, head * width : (head + 1) * width] for each in joined]
    real = REAL[row].nonzero().flatten().tolist()
    powers = [torch.exp(torch.dot(parts[0][token], parts[1][other]) / width**0.5) for other in real]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize(
    "relations, pairs",
    [
        (("queries", "keys", "values"), [("queries", "queries"), ("keys", "keys"), ("values", "values")]),
        (("attention", "values"), [("queries", "keys"), ("values", "values")]),
    ],
)
@pytest.mark.parametrize("num_heads", [1, 4])
def test_the_equations(relations, pairs, num_heads):
    """Student and teacher differ in width: 8 and 12."""
    term = RelationTerm(relations=relations, num_relation_heads=num_heads).bound("r", STUDENT, WIDE)
    student = signals_of(term.requires.student_features, 1)
    teacher = signals_of(term.requires.teacher_features, 2, width=12)
    expected = 0.0
    for row, token in REAL.nonzero().tolist():
        for first, second in pairs:
            for head in range(num_heads):
                q = relation(student, first, second, 2, row, token, head, num_heads)
                p = relation(teacher, first, second, 4, row, token, head, num_heads)
                divergence = sum(p_j * (p_j.log() - q_j.log()) for p_j, q_j in zip(p, q, strict=True))
                expected += divergence.item() / num_heads / len(pairs)
    assert term(student, teacher, where(), 0.0).total.item() == pytest.approx(expected, rel=1e-5)


def test_by_default_as_many_relation_heads_as_the_teacher_has_heads():
    assert RelationTerm().bound("r", STUDENT, TEACHER).num_relation_heads == 2


def test_only_what_is_related_is_read():
    term = RelationTerm(relations=("values",)).bound("r", STUDENT, TEACHER)
    assert term.requires.student_features == {Feature("values", 2)}
    assert term.learned_parts() == {}


def test_heads_that_do_not_divide_both_widths():
    with pytest.raises(
        ConfigurationError, match=r"num_relation_heads=3 must divide .* 8 in the student .* 12 in the t"
    ):
        RelationTerm().bound("r", STUDENT, WIDE)
    with pytest.raises(ConfigurationError, match="Choose a divisor of both, such as 4"):
        RelationTerm(num_relation_heads=5).bound("r", STUDENT, WIDE)


@pytest.mark.parametrize(
    "teacher_width, student_width, number",
    [(768, 384, 48), (1024, 384, 64), (384, 384, 24), (768, 256, 32), (768, 312, 24), (8, 8, 1), (35, 14, 1)],
)
def test_the_width_of_relation_heads(teacher_width, student_width, number):
    student, teacher = (
        Anatomy(name, {"": StackShape(2, width, 2, width)})
        for name, width in (("S", student_width), ("T", teacher_width))
    )
    bound = RelationTerm(relation_head_width=16).bound("r", student, teacher)
    assert bound.num_relation_heads == number
    with pytest.raises(
        ConfigurationError, match="num_relation_heads=4 and relation_head_width=16 say the same in two"
    ):
        RelationTerm(num_relation_heads=4, relation_head_width=16)


@pytest.mark.parametrize("asked, nearest", [(48, 64), (40, 32), (2000, 1024)])
def test_the_divisor_that_is_proposed_is_the_nearest(asked, nearest):
    large = Anatomy("Large", {"": StackShape(24, 1024, 16, 1024)})
    with pytest.raises(ConfigurationError, match=f"such as {nearest}$|such as {nearest}\\."):
        RelationTerm(num_relation_heads=asked).bound("r", large, large)


@pytest.mark.parametrize("num_heads", [None, 4])
def test_heads_that_are_not_known_divide_nothing(num_heads):
    """Who reads queries and keys says that there are none."""
    unknown = Anatomy("X", {"": StackShape(4, 8)})
    term = RelationTerm(num_relation_heads=num_heads)
    assert term.bound("r", STUDENT, unknown).num_relation_heads == num_heads
    assert term.bound("r", unknown, TEACHER).num_relation_heads == (num_heads or 2)


def test_embeddings_have_no_relations():
    with pytest.raises(ConfigurationError, match="names layer 0 of the student, which has the layers 1 to 2"):
        RelationTerm([(0, 0)]).bound("r", STUDENT, TEACHER)


@pytest.mark.parametrize("relations", [(), ("querys",), ("hidden_states",)])
def test_what_is_no_relation(relations):
    with pytest.raises(ConfigurationError, match="relations must be some of queries, keys, values, attention, got"):
        RelationTerm(relations=relations)

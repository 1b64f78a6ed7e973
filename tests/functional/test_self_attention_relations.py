"""MiniLM's relations against the papers' equations in loops. What holds for all: test_feature_contract.py."""

import math
from functools import partial

import pytest
import torch

from hf_distill.errors import ConfigurationError
from hf_distill.functional import self_attention_relation, self_attention_relations
from tests.functional.feature_cases import value_and_gradients
from tests.functional.waves import wave


REAL = torch.tensor([[True, True, True, True, False], [False, True, True, True, False]])
# Two heads of 6 and four heads of 3 numbers, to be split into three parts of 4; two heads of 3, into three of 2.
STUDENT, TEACHER = wave(2, 2, 5, 3, step=1.7, scale=3), wave(2, 4, 5, 3, step=2.3, scale=3)
STUDENT_KEYS, TEACHER_KEYS = wave(2, 2, 5, 3, step=0.7, scale=3), wave(2, 4, 5, 3, step=1.3, scale=3)


def part(vectors, row, token, relation_head, num_relation_heads):
    """All heads' numbers of a token in one list, of which each relation head has a stretch."""
    joined = [number for head in vectors[row] for number in head[token].tolist()]
    width = len(joined) // num_relation_heads
    return joined[relation_head * width : (relation_head + 1) * width]


def relation(vectors, keys, row, token, relation_head, num_relation_heads, tokens):
    """The softmax over real tokens of scaled dot-products, as MiniLMv2 defines a relation."""
    a = part(vectors, row, token, relation_head, num_relation_heads)
    scores = []
    for other in tokens:
        b = part(keys, row, other, relation_head, num_relation_heads)
        scores.append(sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(len(a)))
    powers = [math.exp(score) for score in scores]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("with_keys", [False, True])
@pytest.mark.parametrize("num_relation_heads", [1, 2, 3, 6])
def test_the_equations_in_loops(num_relation_heads, with_keys):
    keys = {"student_keys": STUDENT_KEYS, "teacher_keys": TEACHER_KEYS} if with_keys else {}
    values = self_attention_relation(STUDENT, TEACHER, num_relation_heads=num_relation_heads, token_mask=REAL, **keys)
    assert values.shape == (2, num_relation_heads, 5)
    for row in range(2):
        tokens = [token for token in range(5) if REAL[row, token]]
        for head in range(num_relation_heads):
            for token in range(5):
                where = (row, token, head, num_relation_heads, tokens)
                q = relation(STUDENT, keys.get("student_keys", STUDENT), *where)
                p = relation(TEACHER, keys.get("teacher_keys", TEACHER), *where)
                kl = sum(y * math.log(y / x) for x, y in zip(q, p, strict=True))
                expected = kl if token in tokens else 0.0
                assert values[row, head, token].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert values.transpose(1, 2)[REAL].median() > 1e-2


def test_the_value_of_another_implementation():
    """MiniLM._get_kl_loss of bloomberg/minilmv2.bb at 0d78e20, with A_r=3: for a batch, and for its second row padded.

    It divides by each row's number of tokens, where we give one value for each token.
    """
    student, teacher = wave(2, 4, 6, step=1.7, scale=3), wave(2, 4, 12, step=2.3, scale=3)
    heads = student.unflatten(2, (2, 3)).transpose(1, 2), teacher.unflatten(2, (4, 3)).transpose(1, 2)
    values = self_attention_relation(*heads, num_relation_heads=3)
    assert values.mean().item() == pytest.approx(0.059536127822201204, rel=1e-10)
    real = torch.tensor([[True] * 4, [True, True, True, False]])
    padded = self_attention_relation(*heads, num_relation_heads=3, token_mask=real)
    assert padded[0].mean().item() == pytest.approx(0.060450920991222616, rel=1e-10)
    assert padded[1, :, :3].mean().item() == pytest.approx(0.00021068642618362972, rel=1e-10)


def test_how_a_model_splits_its_heads_changes_nothing():
    joined = TEACHER.transpose(1, 2).flatten(2)
    split = joined.unflatten(2, (6, 2)).transpose(1, 2)
    assert torch.equal(
        self_attention_relation(STUDENT, split, num_relation_heads=3),
        self_attention_relation(STUDENT, TEACHER, num_relation_heads=3),
    )


def test_a_rotation_of_a_relation_head_changes_nothing():
    """Relations know no coordinates, so that no projection is needed."""
    rotation = torch.linalg.qr(wave(6, 6, step=1.1))[0]
    rotated = (STUDENT.transpose(1, 2).flatten(2) @ rotation).unflatten(2, (2, 3)).transpose(1, 2)
    torch.testing.assert_close(
        self_attention_relation(rotated, TEACHER, num_relation_heads=1),
        self_attention_relation(STUDENT, TEACHER, num_relation_heads=1),
    )


@pytest.mark.parametrize("max_kept_scores", [2**23, 0], ids=["kept", "computed again"])
@pytest.mark.parametrize("max_scores, num_calls", [(2**18, 1), (5 * 5 * 5, 3), (1, 12)])
def test_relation_heads_may_go_some_at_a_time(monkeypatch, max_scores, num_calls, max_kept_scores):
    """With the gradient of a teacher that learns too, which torch derives, and by hand without."""
    calls = []
    original = self_attention_relations._kl_and_difference
    function = partial(self_attention_relation, num_relation_heads=6, token_mask=REAL)
    expected = value_and_gradients(function, STUDENT, TEACHER)
    monkeypatch.setattr(self_attention_relations, "MAX_SCORES_IN_CACHE", max_scores)
    monkeypatch.setattr(self_attention_relations, "MAX_KEPT_SCORES", max_kept_scores)
    monkeypatch.setattr(
        self_attention_relations, "_kl_and_difference", lambda *operands: calls.append(1) or original(*operands)
    )
    for tensor, other in zip(value_and_gradients(function, STUDENT, TEACHER), expected, strict=True):
        torch.testing.assert_close(tensor, other)
    assert not calls
    student = STUDENT.clone().requires_grad_()
    values = function(student, TEACHER)
    values.sum().backward()
    torch.testing.assert_close(values, expected[0])
    torch.testing.assert_close(student.grad, expected[1])
    assert len(calls) == num_calls * (1 if max_kept_scores else 2)


@pytest.mark.parametrize("max_kept_scores", [2**23, 0], ids=["kept", "computed again"])
@pytest.mark.parametrize("mask", [None, REAL], ids=["all", "padded"])
def test_the_gradient_by_hand_is_that_of_differences(monkeypatch, mask, max_kept_scores):
    """Of values that are weighed unlike each other, by the vectors and by keys of their own."""
    monkeypatch.setattr(self_attention_relations, "MAX_KEPT_SCORES", max_kept_scores)
    keys, teacher_keys = STUDENT.flip(2).clone().requires_grad_(), TEACHER.flip(1)

    def function(vectors, keys):
        options = {"student_keys": keys, "teacher_keys": teacher_keys, "token_mask": mask}
        return self_attention_relation(vectors, TEACHER, num_relation_heads=3, **options)

    assert torch.autograd.gradcheck(function, (STUDENT.clone().requires_grad_(), keys))


def test_scores_that_are_far_apart():
    """A thousand times as large: the softmax is one of a single token, and the divergence is one of scores."""
    student, teacher = 30 * STUDENT, 30 * TEACHER
    exact = self_attention_relation(student, teacher, num_relation_heads=3, token_mask=REAL)
    values = self_attention_relation(student.float(), teacher.float(), num_relation_heads=3, token_mask=REAL)
    assert exact.max() > 1000
    torch.testing.assert_close(values.double(), exact, rtol=1e-5, atol=1e-3)


def test_many_scores_are_not_kept_for_the_backward_pass(monkeypatch):
    monkeypatch.setattr(self_attention_relations, "MAX_KEPT_SCORES", 4 * 64 * 64 - 1)
    kept = []
    student, teacher = torch.randn(1, 2, 64, 4, requires_grad=True), torch.randn(1, 2, 64, 4)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        values = self_attention_relation(student, teacher, num_relation_heads=4)
    assert values.requires_grad
    assert max(kept, default=0) < 64 * 64


def vectors(*shape, dtype=torch.float32):
    return torch.zeros(*shape, dtype=dtype)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"student_vectors": vectors(2, 5, 8)}, r"shapes .*'student_vectors': \(2, 5, 8\).* \(batch, heads, tokens"),
        ({"student_vectors": vectors(2, 2, 6, 4)}, r"different batches or tokens: .*\(2, 2, 6, 4\)"),
        ({"num_relation_heads": 3}, r"num_relation_heads=3 must divide .*'student_vectors': 8, 'teacher_vectors': 16"),
        ({"num_relation_heads": 0}, r"num_relation_heads=0 must divide"),
        ({"student_keys": vectors(2, 2, 5, 4)}, r"`student_keys` and `teacher_keys` go together"),
        (
            {"student_keys": vectors(2, 1, 5, 4), "teacher_keys": vectors(2, 4, 5, 4)},
            r"student_vectors have 8 numbers a token and student_keys 4\. Repeat the keys",
        ),
        ({"teacher_vectors": vectors(2, 4, 5, 4, dtype=torch.int64)}, r"floating-point dtype, .* torch\.int64"),
        ({"token_mask": torch.ones(2, 4, dtype=torch.bool)}, r"mask has shape \(2, 4\), .* \(2, 5\)"),
        ({"token_mask": torch.ones(2, 5)}, r"mask must be bool"),
    ],
)
def test_refusals(arguments, message):
    defaults = {
        "student_vectors": vectors(2, 2, 5, 4),
        "teacher_vectors": vectors(2, 4, 5, 4),
        "num_relation_heads": 2,
    }
    with pytest.raises(ConfigurationError, match=message):
        self_attention_relation(**{**defaults, **arguments})

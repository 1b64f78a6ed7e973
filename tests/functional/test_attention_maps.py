"""Distances of attention maps against their formulas in plain loops. What holds for all: test_feature_contract.py."""

import math

import pytest
import torch
from transformers import BertConfig, BertModel

from hf_distill.errors import ConfigurationError
from hf_distill.functional import attention_kl, attention_mse, self_attention_relation
from tests.functional.waves import wave


REAL = torch.tensor([[True, True, True, False], [False, True, True, False]])
STUDENT, TEACHER = wave(2, 3, 4, 4, step=1.7, scale=2), wave(2, 3, 4, 4, step=2.3, scale=2)


def real_places(row):
    return [place for place in range(4) if REAL[row, place]]


def loop_mse(s, t):
    return sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / len(s)


def loop_kl(q, p):
    return sum(b * math.log(b / a) for a, b in zip(q, p, strict=True) if b > 0)


def attention(scores):
    """What a model that masks padding would give."""
    return torch.softmax(scores.masked_fill(~REAL[:, None, None], -torch.inf), dim=-1)


@pytest.mark.parametrize(
    "function, loop, student, teacher",
    [
        (attention_mse, loop_mse, STUDENT, TEACHER),
        (attention_kl, loop_kl, attention(STUDENT), attention(TEACHER)),
    ],
)
def test_the_formula_in_loops(function, loop, student, teacher):
    values = function(student, teacher, token_mask=REAL)
    assert values.shape == (2, 3, 4)
    for row in range(2):
        for head in range(3):
            for token in real_places(row):
                ours, theirs = (maps[row, head, token, real_places(row)].tolist() for maps in (student, teacher))
                assert values[row, head, token].item() == pytest.approx(loop(ours, theirs), rel=1e-12)
    assert values.count_nonzero() == 3 * REAL.sum()


def test_a_causal_mask_is_left_out_of_both():
    """Row i attends to tokens 0 to i, and its mean is over those."""
    future = torch.ones(4, 4, dtype=torch.bool).triu(1)
    student, teacher = (scores.masked_fill(future, -torch.inf) for scores in (STUDENT, TEACHER))
    student = student.requires_grad_()
    values = attention_mse(student, teacher)
    values.sum().backward()
    assert values[1, 2, 1].item() == pytest.approx(
        loop_mse(STUDENT[1, 2, 1, :2].tolist(), TEACHER[1, 2, 1, :2].tolist())
    )
    assert student.grad.isfinite().all() and (student.grad[..., future] == 0).all()

    q, p = torch.softmax(student.detach(), dim=-1).requires_grad_(), torch.softmax(teacher, dim=-1)
    values = attention_kl(q, p)
    values.sum().backward()
    assert values[1, 2, 1].item() == pytest.approx(loop_kl(q[1, 2, 1, :2].tolist(), p[1, 2, 1, :2].tolist()))
    torch.testing.assert_close(q.grad, torch.where(future, 0.0, -p / q.detach().masked_fill(future, 1.0)))


def test_attention_that_only_the_student_lacks_is_infinite():
    p, q = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
    one, other = (row.expand(1, 1, 2, 2) for row in (p, q))
    assert torch.equal(attention_kl(other, one), torch.full((1, 1, 2), torch.inf))
    torch.testing.assert_close(attention_kl(one, other), torch.full((1, 1, 2), math.log(2)))


@pytest.mark.parametrize("function", [attention_mse, attention_kl])
def test_nan_at_padding_is_harmless(function):
    """In rows of padding and in columns of padding."""
    clean = attention(STUDENT), attention(TEACHER)
    padding = ~(REAL[:, None, :, None] & REAL[:, None, None, :]).expand(2, 3, 4, 4)
    student, teacher = (maps.masked_fill(padding, torch.nan).requires_grad_() for maps in clean)
    values = function(student, teacher, token_mask=REAL)
    values.sum().backward()
    torch.testing.assert_close(values, function(*clean, token_mask=REAL))
    for gradient in (student.grad, teacher.grad):
        assert (gradient[padding] == 0).all() and gradient[~padding].isfinite().all()


def test_attention_of_a_model_is_the_relation_of_its_queries_and_keys():
    """Which costs neither the slow attention nor its dropout."""
    config = BertConfig(
        vocab_size=50, hidden_size=12, num_hidden_layers=1, num_attention_heads=3, intermediate_size=16,
        attn_implementation="eager",
    )  # fmt: skip
    student, teacher = BertModel(config).double().eval(), BertModel(config).double().eval()
    inputs = {"input_ids": torch.arange(10).reshape(2, 5), "attention_mask": torch.tensor([[1] * 5, [1, 1, 1, 0, 0]])}
    maps, vectors = [], []
    for model in (student, teacher):
        hidden = model.embeddings(inputs["input_ids"])
        layer = model.encoder.layer[0].attention.self
        vectors.append([part(hidden).reshape(2, 5, 3, 4).transpose(1, 2) for part in (layer.query, layer.key)])
        maps.append(model(**inputs, output_attentions=True).attentions[0])
    (queries, keys), (teacher_queries, teacher_keys) = vectors
    real = inputs["attention_mask"].bool()
    values = self_attention_relation(
        queries, teacher_queries, num_relation_heads=3, token_mask=real, student_keys=keys, teacher_keys=teacher_keys
    )
    torch.testing.assert_close(values, attention_kl(*maps, token_mask=real))
    assert (values.transpose(1, 2)[real] > 0).all()


@pytest.mark.parametrize("function", [attention_mse, attention_kl])
def test_refusals(function):
    square = torch.zeros(2, 3, 4, 4)
    with pytest.raises(
        ConfigurationError, match=r"\(2, 3, 4, 4\) and the teacher's \(2, 6, 4, 4\)\. .* different heads"
    ):
        function(square, torch.zeros(2, 6, 4, 4))
    with pytest.raises(ConfigurationError, match=r"shape \(2, 3, 4, 5\)"):
        function(torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 4, 5))
    with pytest.raises(ConfigurationError, match=r"the student's attention is torch\.int64"):
        function(square.long(), square)
    with pytest.raises(ConfigurationError, match=r"mask has shape \(2, 3\), .* \(2, 4\)"):
        function(square, square, token_mask=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ConfigurationError, match=r"mask must be bool"):
        function(square, square, token_mask=torch.ones(2, 4))

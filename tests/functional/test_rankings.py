"""Scores of lists of candidates, against their formulas in loops."""

import pytest
import torch

from hf_distill.errors import ConfigurationError
from hf_distill.functional import forward_kl, listwise_kl, margin_mse
from tests.functional.divergence_cases import loop_forward_kl, random_logits, value_and_gradient


# Lists of 4, 3, 2, 1 and no candidates, and one without its first.
LENGTHS = torch.arange(4) < torch.tensor([4, 3, 2, 1, 0, 4])[:, None]
LENGTHS[5, 0] = False
every_function = pytest.mark.parametrize("function", [listwise_kl, margin_mse])


def poisoned(dtype=torch.float64):
    student, teacher = random_logits(6, 4, dtype=dtype)
    student[~LENGTHS], teacher[~LENGTHS] = torch.nan, torch.inf
    return student, teacher


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_listwise_kl_in_loops(temperature):
    student, teacher = poisoned()
    values = listwise_kl(student, teacher, temperature=temperature, mask=LENGTHS)
    assert values.shape == (6,)
    for row in range(6):
        ours, theirs = (scores[row][LENGTHS[row]].tolist() for scores in (student, teacher))
        expected = loop_forward_kl(ours, theirs, temperature) if ours else 0.0
        assert values[row].item() == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert values.count_nonzero() == 4


def test_margin_mse_in_loops():
    student, teacher = poisoned()
    values = margin_mse(student, teacher, mask=LENGTHS)
    assert values.shape == (6, 3)
    for row in range(6):
        for k in range(1, 4):
            margins = [(scores[row, 0] - scores[row, k]).item() for scores in (student, teacher)]
            counts = LENGTHS[row, 0] and LENGTHS[row, k]
            assert values[row, k - 1].item() == (pytest.approx((margins[0] - margins[1]) ** 2) if counts else 0)
    assert values.count_nonzero() == 3 + 2 + 1


@every_function
def test_what_does_not_count_gets_no_gradient(function):
    student, teacher = poisoned()
    _, gradient = value_and_gradient(function, student, teacher, mask=LENGTHS)
    assert torch.equal(gradient[~LENGTHS], torch.zeros_like(gradient[~LENGTHS]))
    assert gradient.isfinite().all() and (gradient[:3][LENGTHS[:3]] != 0).all()


@every_function
def test_all_candidates_without_a_mask(function):
    student, teacher = random_logits(6, 4)
    everywhere = torch.ones(6, 4, dtype=torch.bool)
    torch.testing.assert_close(function(student, teacher), function(student, teacher, mask=everywhere))
    torch.testing.assert_close(listwise_kl(student, teacher), forward_kl(student, teacher))


@every_function
def test_a_constant_added_to_a_list_changes_nothing(function):
    student, teacher = random_logits(6, 4)
    torch.testing.assert_close(function(student + 3, teacher - 5), function(student, teacher))


@every_function
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_zero_at_equality(function, dtype):
    scores, _ = random_logits(6, 4, dtype=dtype)
    values = function(scores, scores.clone(), mask=LENGTHS)
    assert torch.equal(values, torch.zeros_like(values))
    assert values.dtype == torch.promote_types(dtype, torch.float32)


@every_function
def test_gradcheck_of_student_and_teacher(function):
    student, teacher = (scores.requires_grad_() for scores in random_logits(6, 4))
    assert torch.autograd.gradcheck(lambda ours, theirs: function(ours, theirs, mask=LENGTHS), (student, teacher))


@every_function
def test_compiles_without_a_break(function):
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    student, teacher = random_logits(6, 4)
    torch.testing.assert_close(compiled(student, teacher, mask=LENGTHS), function(student, teacher, mask=LENGTHS))


def test_similarities_of_embeddings_are_scores():
    """A student of width 2 learns the order that a teacher of width 8 finds."""
    queries, passages = (torch.randn(3, width, dtype=torch.float64) for width in (8, 8))
    student_queries = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    student_passages = torch.randn(3, 2, dtype=torch.float64)
    before = listwise_kl(student_queries @ student_passages.T, queries @ passages.T).mean()
    before.backward()
    moved = student_queries.detach() - 0.01 * student_queries.grad
    assert listwise_kl(moved @ student_passages.T, queries @ passages.T).mean() < before


@every_function
def test_refusals(function):
    scores = torch.zeros(2, 3)
    with pytest.raises(ConfigurationError, match=r"mask has shape \(2,\), .* \(2, 3\)"):
        function(scores, scores, mask=torch.ones(2, dtype=torch.bool))
    with pytest.raises(ConfigurationError, match=r"mask must be bool"):
        function(scores, scores, mask=torch.ones(2, 3))
    with pytest.raises(ConfigurationError, match=r"student_scores have shape \(2, 3\) and teacher_scores \(2, 4\)"):
        function(scores, torch.zeros(2, 4))
    with pytest.raises(ConfigurationError, match="temperature must be a finite number above 0, got 0"):
        listwise_kl(scores, scores, temperature=0)

"""A teacher's score against chance, each held against a plain count."""

import math

import pytest
import torch

from hf_distill.heads import (
    CausalLMHead,
    CTCHead,
    DualEncoderHead,
    MaskedLMHead,
    QuestionAnsweringHead,
    RegressionHead,
    SingleLabelHead,
)
from hf_distill.teacher_scores import binomial_tail, teacher_score
from hf_distill.types import Signals


def answers_of(head, logits, **batch):
    return [(batch, Signals(logits), head.positions(batch))]


def classified(guesses, labels):
    logits = torch.nn.functional.one_hot(torch.tensor(guesses), 3).double()
    return teacher_score(SingleLabelHead(), answers_of(SingleLabelHead(), logits, labels=torch.tensor(labels)))


def test_the_tail_of_a_binomial_is_the_sum_over_all_outcomes():
    for trials, probability in ((5, 0.3), (8, 0.5)):
        for successes in range(trials + 1):
            expected = sum(
                math.comb(trials, k) * probability**k * (1 - probability) ** (trials - k)
                for k in range(successes, trials + 1)
            )
            assert binomial_tail(successes, trials, probability) == pytest.approx(expected)
    assert binomial_tail(1, 5, 0.0) == 0.0
    assert binomial_tail(5, 5, 1.0) == 1.0


def test_a_good_classifier_is_above_chance_and_a_constant_one_is_not():
    labels = [0] * 28 + [1, 2] * 4
    good = classified(labels, labels)
    assert (good.metric, good.value, good.num_rows, good.is_above_chance) == ("accuracy", 1.0, 36, True)
    assert good.chance == pytest.approx((28**2 + 4**2 + 4**2) / 36**2)
    constant = classified([0] * 36, labels)
    assert constant.value == constant.chance == pytest.approx(28 / 36)
    assert not constant.is_above_chance
    assert str(constant) == "accuracy 0.7778, chance 0.7778"


def test_labels_in_another_order_are_below_chance():
    assert not classified([1, 2, 0] * 12, [0, 1, 2] * 12).is_above_chance


def test_few_rows_say_nothing():
    assert classified([1] * 29, [0] * 29).is_above_chance
    assert not classified([1] * 30, [0] * 30).is_above_chance


def test_labels_that_do_not_count_are_left_out():
    score = classified([0, 1, 2], [0, -100, 1])
    assert score.value == 0.5
    assert classified([0], [-100]) is None


def test_regression_is_compared_with_the_variance():
    labels = torch.arange(40.0)
    head = RegressionHead()
    score = teacher_score(head, answers_of(head, labels[:, None] + 1, labels=labels))
    assert (score.metric, score.value, score.is_above_chance) == ("squared error", 1.0, True)
    assert score.chance == pytest.approx(sum((value - 19.5) ** 2 for value in range(40)) / 40)
    mean = teacher_score(head, answers_of(head, torch.full((40, 1), 19.5), labels=labels))
    assert not mean.is_above_chance


@pytest.mark.parametrize("head", [MaskedLMHead(), CausalLMHead()])
def test_a_language_model_is_compared_with_a_uniform_guess(head):
    shift = 1 if isinstance(head, CausalLMHead) else 0
    tokens = torch.randint(0, 10, (4, 12))
    logits = torch.randn(4, 12, 10, dtype=torch.float64)
    score = teacher_score(head, answers_of(head, logits, input_ids=tokens, labels=tokens))
    losses = [
        -torch.log_softmax(logits[row, t], -1)[tokens[row, t + shift]] for row in range(4) for t in range(12 - shift)
    ]
    assert score.value == pytest.approx(torch.stack(losses).mean().exp().item(), rel=1e-5)
    assert (score.metric, score.chance, score.is_above_chance) == ("perplexity", 10.0, False)
    known = torch.nn.functional.one_hot(tokens.roll(-shift, 1), 10) * 9.0
    assert teacher_score(head, answers_of(head, known, input_ids=tokens, labels=tokens)).is_above_chance


def test_answers_are_compared_with_one_over_the_length():
    head, starts = QuestionAnsweringHead(), torch.arange(32) % 8
    mask = torch.ones(32, 8, dtype=torch.long)
    batch = {"input_ids": mask, "attention_mask": mask, "start_positions": starts, "end_positions": starts}
    right = torch.nn.functional.one_hot(starts, 8)[:, None].expand(-1, 2, -1)
    score = teacher_score(head, answers_of(head, right, **batch))
    assert (score.value, score.chance, score.is_above_chance) == (1.0, pytest.approx(1 / 8), True)
    assert not teacher_score(head, answers_of(head, right.roll(1, -1), **batch)).is_above_chance


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("shift, right", [(0, 30), (3, 0)])
def test_pairs_are_compared_with_one_over_their_number(activation, shift, right):
    """In each batch; a batch of one row says nothing."""
    head, answers = DualEncoderHead(activation), []
    for size in (8, 24, 1):
        near = torch.eye(size)
        near[0] = near[0].roll(1)  # the first image is found to have the second text
        near = near.roll(shift, 1)
        other = torch.zeros_like(near)
        scores = torch.stack((near, other), -1 if activation == "sigmoid" else 0)
        answers += answers_of(head, scores, input_ids=torch.ones(size, 4))
    score = teacher_score(head, answers)
    assert (score.metric, score.value, score.is_above_chance) == ("accuracy", right / 32, right > 0)
    assert score.chance == pytest.approx(sum([1 / 8] * 8 + [1 / 24] * 24) / 32)
    assert teacher_score(head, answers[2:]) is None


def test_transcripts_have_no_score():
    head = CTCHead(lambda lengths: lengths)
    sounds, labels = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.long)
    assert teacher_score(head, answers_of(head, torch.zeros(2, 3, 4), input_values=sounds, labels=labels)) is None


def test_no_answers_have_no_score():
    assert teacher_score(SingleLabelHead(), []) is None

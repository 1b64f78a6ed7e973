"""Where an answer starts and ends, in plain loops."""

import math

import pytest
import torch

from hf_distill.heads import QuestionAnsweringHead
from hf_distill.types import Unit


HEAD = QuestionAnsweringHead()
PADDING = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


def batch(starts, ends):
    return {
        "input_ids": torch.ones(2, 4, dtype=torch.long),
        "attention_mask": PADDING,
        "start_positions": torch.tensor(starts),
        "end_positions": torch.tensor(ends),
    }


def outputs():
    start, end = torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(0))
    return {"start_logits": start.requires_grad_(), "end_logits": end.requires_grad_(), "loss": torch.tensor(123.0)}


def cross_entropy(logits, answer):
    return math.log(sum(math.exp(logit) for logit in logits)) - logits[answer]


def test_padding_cannot_be_chosen():
    logits = HEAD.logits(outputs(), batch([0, 0], [0, 0]))
    assert logits.shape == (2, 2, 4)
    assert torch.isneginf(logits[1, :, 2:]).all()
    assert logits[0].isfinite().all() and logits[1, :, :2].isfinite().all()


def test_two_choices_a_row():
    where = HEAD.positions(batch([0, 0], [3, 1]))
    assert where.mask.shape == (2, 2) and where.mask.all()
    assert where.counts.items() >= {Unit.LABEL: 4, Unit.POSITION: 4}.items()


@pytest.mark.parametrize("outside", [-1, 2, 4, 9])
def test_answers_that_point_at_no_real_token_are_left_out(outside):
    """2 is padding, 4 and more are what a truncated context gives."""
    said = outputs()
    loss = HEAD.label_loss(said, batch([2, outside], [3, 1]))
    start, end = said["start_logits"].tolist(), said["end_logits"].tolist()
    expected = cross_entropy(start[0], 2) + cross_entropy(end[0], 3) + cross_entropy(end[1][:2], 1)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert HEAD.num_labels(batch([2, outside], [3, 1])) == 3


def test_no_answer_at_all_gives_zero_and_no_gradient():
    said = outputs()
    loss = HEAD.label_loss(said, batch([4, 4], [4, 4]))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(said["start_logits"].grad, torch.zeros(2, 4))


def test_answers_as_a_column():
    """Some data sets give `(B, 1)`."""
    column = batch([[2], [0]], [[3], [1]])
    assert HEAD.num_labels(column) == 4
    assert torch.equal(HEAD.label_loss(outputs(), column), HEAD.label_loss(outputs(), batch([2, 0], [3, 1])))


def test_both_labels_are_needed():
    incomplete = batch([0, 0], [1, 1])
    incomplete.pop("end_positions")
    assert not HEAD.has_labels(incomplete)
    assert HEAD.has_labels(batch([0, 0], [1, 1]))

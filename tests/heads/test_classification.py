"""Heads that choose a class."""

import torch

from hf_distill.heads import MultiLabelHead, RegressionHead, SingleLabelHead, TokenClassificationHead
from hf_distill.types import Unit


TOKENS = torch.ones(2, 4, dtype=torch.long)
PADDING = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])


def test_single_label_compares_every_row():
    head = SingleLabelHead()
    where = head.positions({"input_ids": TOKENS, "labels": torch.tensor([2, -100])})
    assert where.mask.tolist() == [True, True]
    assert where.counts == {Unit.LABEL: 1, Unit.POSITION: 2}
    logits = torch.randn(2, 3)
    assert head.logits({"logits": logits}, {}) is logits


def test_single_label_skips_what_has_no_rows():
    where = SingleLabelHead().positions({"return_loss": True, "scale": torch.tensor(2.0), "input_ids": TOKENS})
    assert where.mask.tolist() == [True, True]


def test_multi_label_scores_are_yes_or_no():
    head = MultiLabelHead(num_classes=3)
    logits = torch.tensor([[1.5, -0.5, 0.0], [2.0, 3.0, -4.0]])
    pairs = head.logits({"logits": logits}, {})
    assert torch.allclose(torch.softmax(pairs, dim=-1)[..., 0], torch.sigmoid(logits))
    assert torch.allclose(torch.softmax(pairs, dim=-1)[..., 1], 1 - torch.sigmoid(logits))


def test_multi_label_counts_every_class_of_every_row():
    where = MultiLabelHead(num_classes=3).positions({"input_ids": TOKENS, "labels": torch.zeros(2, 3)})
    assert where.mask.shape == (2, 3) and where.mask.all()
    assert where.counts == {Unit.LABEL: 6, Unit.POSITION: 6}


def test_regression_counts_rows_and_leaves_no_number_out():
    where = RegressionHead().positions({"input_ids": TOKENS, "labels": torch.tensor([-100.0, 1.0])})
    assert where.counts == {Unit.LABEL: 2, Unit.POSITION: 2}
    assert not RegressionHead().signals({"logits": torch.zeros(2, 1)}, {}).is_distribution


def test_tokens_are_compared_where_they_are_labelled():
    labels = torch.tensor([[-100, 1, 0, -100], [2, -100, -100, -100]])
    where = TokenClassificationHead().positions({"input_ids": TOKENS, "attention_mask": PADDING, "labels": labels})
    assert torch.equal(where.mask, labels != -100)
    assert where.counts == {Unit.LABEL: 3, Unit.POSITION: 3}


def test_tokens_without_labels_are_compared_where_they_are_real():
    where = TokenClassificationHead().positions({"input_ids": TOKENS, "attention_mask": PADDING})
    assert torch.equal(where.mask, PADDING.bool())
    assert where.counts == {Unit.LABEL: 0, Unit.POSITION: 5}

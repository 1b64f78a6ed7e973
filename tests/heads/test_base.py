"""What every head shares: counting labels, summing the own loss, and heads that we do not know."""

import math

import pytest
import torch

from hf_distill.heads import Head, TokenClassificationHead, head_of
from hf_distill.heads.base import at_least_float32, real_tokens
from hf_distill.types import Unit
from tests.tiny_models import ALL_HEADS, WITHOUT_CLASSES, PaddingCollator, model_for, rows_for


LABELS = torch.tensor([[1, -100, 2], [0, -100, -100]])
HEAD = TokenClassificationHead()


def test_labels_are_counted_without_those_left_out():
    assert HEAD.num_labels({"labels": LABELS}) == 3


def test_the_own_loss_is_summed():
    loss = HEAD.label_loss({"loss": torch.tensor(0.5)}, {"labels": LABELS})
    assert loss.item() == 1.5 and loss.ndim == 0


def test_the_own_loss_of_no_label_is_zero_with_its_graph():
    """Transformers' mean over no label is NaN."""
    logits = torch.randn(2, 3, 4, requires_grad=True)
    labels = torch.full((2, 3), -100)
    mean = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert math.isnan(mean.item())
    total = HEAD.label_loss({"loss": mean}, {"labels": labels})
    total.backward()
    assert total.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_the_sum_of_a_bfloat16_loss_is_float32():
    """In bfloat16 a sum over 3 labels would be rounded to 3 digits."""
    mean = torch.tensor(1.109375, dtype=torch.bfloat16)
    loss = HEAD.label_loss({"loss": mean}, {"labels": LABELS})
    assert loss.dtype == torch.float32 and loss.item() == 3 * 1.109375
    assert at_least_float32(mean.double()).dtype == torch.float64


@pytest.mark.parametrize("batch, expected", [({}, False), ({"labels": None}, False), ({"labels": LABELS}, True)])
def test_has_labels(batch, expected):
    assert HEAD.has_labels(batch) is expected


def test_labels_are_what_the_batch_has_of_them():
    assert HEAD.labels({"input_ids": torch.ones(2, 3), "labels": LABELS}) == {"labels": LABELS}
    assert HEAD.labels({"input_ids": torch.ones(2, 3)}) == {}


def test_positions_count_every_unit():
    batch = {"input_ids": torch.ones(2, 3, dtype=torch.long), "labels": LABELS}
    where = HEAD.positions(batch)
    assert set(where.counts) == set(Unit)
    assert (where.counts[Unit.LABEL], where.counts[Unit.POSITION]) == (3, 3)
    unlabelled = HEAD.positions({"input_ids": torch.ones(2, 3, dtype=torch.long)})
    assert (unlabelled.counts[Unit.LABEL], unlabelled.counts[Unit.POSITION]) == (0, 6)


def test_signals_hold_the_loss_only_if_there_is_one():
    logits = torch.zeros(2, 3, 4)
    assert HEAD.signals({"logits": logits}, {"labels": LABELS}).label_loss is None
    assert HEAD.signals({"logits": logits, "loss": torch.tensor(2.0)}, {"labels": LABELS}).label_loss == 6.0


def test_real_tokens():
    tokens = torch.ones(2, 3, dtype=torch.long)
    padded = torch.tensor([[0, 1, 1], [1, 1, 1]])
    assert torch.equal(real_tokens({"input_ids": tokens, "attention_mask": padded}), padded.bool())
    assert torch.equal(real_tokens({"input_ids": tokens}), torch.ones(2, 3, dtype=torch.bool))
    four_dimensional = {"input_ids": tokens, "attention_mask": torch.zeros(2, 1, 3, 3)}
    assert torch.equal(real_tokens(four_dimensional), torch.ones(2, 3, dtype=torch.bool))
    assert torch.equal(real_tokens({"inputs_embeds": torch.zeros(2, 3, 8)}), torch.ones(2, 3, dtype=torch.bool))


def test_the_base_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Head()


@pytest.mark.parametrize("name", [name for name in ALL_HEADS if name not in WITHOUT_CLASSES])
def test_targets_name_the_classes_that_the_own_loss_asks_for(name):
    """The cross-entropy of the logits with them is the model's own loss, summed over its labels."""
    model, batch = model_for(name, 1).double(), PaddingCollator(extra=2)(rows_for(name))
    head = head_of(model).resolved(batch)
    where = head.positions(batch)
    signals = head.signals(model(**{**batch, **head.labels(batch)}), batch)
    own = torch.nn.functional.cross_entropy(signals.logits.flatten(0, -2), where.targets.flatten(), reduction="sum")
    assert own.item() == pytest.approx(signals.label_loss.item(), rel=1e-5)
    assert (where.mask & (where.targets >= 0)).sum() == where.counts[Unit.LABEL] > 0


@pytest.mark.parametrize("name", WITHOUT_CLASSES)
def test_labels_that_name_no_class_of_a_position(name):
    batch = PaddingCollator()(rows_for(name))
    assert head_of(model_for(name, 1)).positions(batch).targets is None


@pytest.mark.parametrize("name", [name for name in ALL_HEADS if name not in ("seq2seq", "bart", "speech")])
def test_no_labels_name_no_class(name):
    labels = ("labels", "start_positions", "end_positions")
    batch = {key: value for key, value in PaddingCollator()(rows_for(name)).items() if key not in labels}
    assert head_of(model_for(name, 1)).resolved(batch).positions(batch).targets is None

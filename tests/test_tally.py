"""Means over a whole set."""

import math

import pytest
import torch
from accelerate import Accelerator

from hf_distill.heads.base import num_rows
from hf_distill.tally import Tally, first_rows, is_packed
from hf_distill.types import TermLoss


def batch(total, count, dtype=torch.float32):
    return TermLoss(torch.tensor(total, dtype=dtype), torch.tensor(count))


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


def test_is_the_sum_over_the_count_and_not_the_mean_of_means(accelerator):
    tally = Tally()
    tally.add({"loss": batch(8.0, 2)})
    tally.add({"loss": batch(1.0, 8)})
    assert tally.means(accelerator) == {"loss": 0.9}
    assert (8 / 2 + 1 / 8) / 2 != 0.9


def test_names_that_only_some_batches_have(accelerator):
    tally = Tally()
    tally.add({"a": batch(1.0, 1)})
    tally.add({"a": batch(3.0, 1), "b": batch(5.0, 2)})
    assert tally.means(accelerator) == {"a": 2.0, "b": 2.5}


def test_many_small_values_after_a_large_one_are_not_lost(accelerator):
    """In float32 each of them would be rounded away."""
    tally = Tally()
    tally.add({"loss": batch(2.0**24, 0)})
    for _ in range(100):
        tally.add({"loss": batch(1.0, 1)})
    assert tally.means(accelerator) == {"loss": (2.0**24 + 100) / 100}


def test_nothing_counted_is_nan_and_nothing_added_is_empty(accelerator):
    tally = Tally()
    assert tally.means(accelerator) == {}
    tally.add({"loss": batch(0.0, 0)})
    assert math.isnan(tally.means(accelerator)["loss"])


def test_keeps_no_graph(accelerator):
    weight = torch.ones((), requires_grad=True)
    tally = Tally()
    tally.add({"loss": TermLoss(weight * 2, torch.tensor(1))})
    assert tally.means(accelerator) == {"loss": 2.0}
    assert not any(total.requires_grad for total in tally._sums.values())


def test_rows_are_counted_and_cut_whatever_they_are_nested_in():
    """A detector's labels come first here, and hold as many tensors of another length."""
    labels = [{"class_labels": torch.zeros(number)} for number in (5, 0, 2)]
    batch = {"labels": labels, "pixel_values": torch.arange(12).view(3, 4), "scale": torch.tensor(2.0), "names": ["a"]}
    assert num_rows(batch) == 3
    cut = first_rows(batch, 2)
    assert cut["labels"] == labels[:2]
    assert torch.equal(cut["pixel_values"], torch.arange(8).view(2, 4))
    assert cut["scale"] is batch["scale"] and cut["names"] == ["a"]


def test_rows_are_counted_by_their_texts():
    """Qwen-VL's processors put the patches of all images of a batch into one tensor."""
    batch = {"pixel_values": torch.zeros(24, 5), "input_ids": torch.zeros(3, 7), "scale": torch.tensor(2.0)}
    assert num_rows(batch) == 3 and is_packed(batch)
    assert not is_packed({**batch, "pixel_values": torch.zeros(3, 5)})

"""Trying things on leaves weights, data and random state as they were."""

import random

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import IterableDataset
from transformers import DataCollatorForLanguageModeling

from hf_distill.trial_batches import collated, leaving_no_trace, sampled_rows
from tests.test_resume import masking_collator
from tests.tiny_models import bert, rows_for
from tests.tiny_trainers import trainer_for


class Stream(IterableDataset):
    """Reads on from where it was left, as a file does."""

    def __init__(self, rows):
        self.rows, self.position = rows, 0

    def __iter__(self):
        while self.position < len(self.rows):
            self.position += 1
            yield self.rows[self.position - 1]


class Pipe(Stream):
    def __init__(self, rows):
        super().__init__(rows)
        self.handle = (row for row in rows)


def test_rows_are_spread_over_the_data_set():
    assert sampled_rows(list(range(10)), 5) == [1, 2, 4, 6, 9]
    assert sampled_rows(list(range(3)), 5) == [0, 1, 2]
    assert sampled_rows(Dataset.from_dict({"a": [1, 2, 3, 4]}), 2) == [{"a": 2}, {"a": 3}]
    assert sampled_rows({"first": [7], "second": [8]}, 5) == [7]
    assert sampled_rows(None, 5) == []


def test_a_stream_is_not_consumed():
    stream = Stream([1, 2, 3])
    assert sampled_rows(stream, 2) == [1, 2]
    assert list(stream) == [1, 2, 3]
    lazy = Dataset.from_dict({"a": [1, 2, 3]}).to_iterable_dataset()
    assert sampled_rows(lazy, 2) == [{"a": 1}, {"a": 2}]
    assert list(lazy) == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_a_stream_that_cannot_be_copied_is_left_alone():
    pipe = Pipe([1, 2, 3])
    assert sampled_rows(pipe, 2) == []
    assert list(pipe) == [1, 2, 3]


def test_a_collator_keeps_its_random_state(tmp_path):
    tokenizer = masking_collator().tokenizer
    rows = [{"input_ids": row["input_ids"]} for row in rows_for("masked")]
    drawn = []
    for tries in (0, 3):
        collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5, seed=3)
        trainer = trainer_for(tmp_path, "masked", rows=rows, data_collator=collator)
        collator(rows)
        for _ in range(tries):
            collated(trainer, rows)
        drawn.append(collator(rows)["labels"])
    assert torch.equal(*drawn)


class Drawing(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout, self.norm, self.frozen = nn.Dropout(0.5), nn.BatchNorm1d(2), nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self):
        self.calls += 1
        return self.norm(self.dropout(torch.randn(4, 2)))


def test_random_state_modes_and_buffers_are_put_back():
    def drawn():
        return random.random(), np.random.rand(), torch.rand(()).item()

    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    expected = drawn()
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    model = Drawing().train()
    model.frozen.eval()
    torch.manual_seed(0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="on the way"), leaving_no_trace(model):
        assert not model.dropout.training
        model()
        drawn()
        raise RuntimeError("on the way")
    assert drawn() == expected
    assert model.training and model.dropout.training and not model.frozen.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_recurrent_layers_stay_in_train_mode():
    model = nn.Sequential(nn.LSTM(2, 2), nn.Dropout())
    with leaving_no_trace(model.train()):
        assert model[0].training and not model[1].training
    with leaving_no_trace(bert().eval()):
        pass

"""Which rows are put into a batch together."""

from itertools import pairwise

import pytest
import torch
from datasets import Dataset
from torch.utils.data import RandomSampler, SequentialSampler

from hf_distill import ContrastiveTerm, DistillationTrainingArguments, IntraClassTerm, Objective, RowRelationTerm
from hf_distill.length_grouping import ShuffledLengthGroups, num_tokens_of_rows
from tests.tiny_models import rows_for
from tests.tiny_trainers import trainer_for


LENGTHS = (torch.arange(203) * 37 % 61 + 3).tolist()
"""Of 203 rows, so that a batch of 4 is left with 3."""


def batches(epoch=0, seed=0):
    sampler = ShuffledLengthGroups(4, LENGTHS, seed)
    sampler.set_epoch(epoch)
    order = list(sampler)
    return [order[start : start + 4] for start in range(0, len(order), 4)]


def num_padded(groups):
    return sum(len(group) * max(LENGTHS[index] for index in group) for group in groups)


def test_every_row_once_and_little_padding():
    grouped = batches()
    assert sorted(index for group in grouped for index in group) == list(range(203))
    assert len(grouped[-1]) == 3
    shuffled = torch.randperm(203, generator=torch.Generator().manual_seed(0)).split(4)
    assert num_padded(grouped) < 1.1 * sum(LENGTHS) < 1.3 * sum(LENGTHS) < num_padded(shuffled)


def test_the_longest_row_comes_first_and_the_others_in_no_order_of_length():
    longest = [max(LENGTHS[index] for index in group) for group in batches()]
    assert longest[0] == max(LENGTHS)
    rises = sum(later > earlier for earlier, later in pairwise(longest))
    assert 15 < rises < 35  # of 50; from long to short it would rise 4 times


def test_the_order_is_that_of_seed_and_epoch_whatever_was_drawn_before():
    first = batches(epoch=1)
    torch.manual_seed(3)
    assert batches(epoch=1) == first
    assert batches(epoch=2) != first
    assert batches(epoch=1, seed=5) != first


@pytest.mark.parametrize("lengths", [[4], [3, 5, 4], [3, 5, 4, 6]])
def test_less_than_a_batch_and_one_batch(lengths):
    assert sorted(ShuffledLengthGroups(4, lengths, seed=0)) == list(range(len(lengths)))


class Unread(torch.utils.data.Dataset):
    """Rows that cost something to make, such as pictures or text that is tokenized when it is asked for."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        raise AssertionError("a row was made to count its tokens")


ROWS = [{"input_ids": list(range(length)), "labels": 0} for length in (3, 1, 2)]


def unread(batch):
    raise AssertionError("a row was made to count its tokens")


@pytest.mark.parametrize(
    "dataset, lengths",
    [
        (ROWS, [3, 1, 2]),
        ([{"input_ids": torch.tensor(row["input_ids"])} for row in ROWS], [3, 1, 2]),
        (Dataset.from_list(ROWS), [3, 1, 2]),
        (Dataset.from_list(ROWS).with_format("torch"), [3, 1, 2]),
        (Dataset.from_list(ROWS).select([2, 0]), [2, 3]),
        (Dataset.from_list(ROWS).with_transform(unread), None),
        (Dataset.from_dict({"text": ["a film"]}), None),
        (Dataset.from_dict({"input_ids": [[[1, 2], [3]]]}), None),
        (Dataset.from_dict({"input_ids": ["a film"]}), None),
        ([{"input_ids": "a film"}], None),
        ([{"input_ids": [[1, 2], [3]]}], None),
        ([{"input_ids": torch.ones(2, 3)}], None),
        ([{"pixel_values": torch.ones(3, 4, 4)}], None),
        ([torch.ones(3)], None),
        (Unread(), None),
    ],
)
def test_lengths_are_read_where_the_tokens_are(dataset, lengths):
    assert num_tokens_of_rows(dataset) == lengths


def sampler_of(trainer):
    return trainer._get_train_sampler(trainer.train_dataset)


def default_trainer(output_dir, **changes):
    """A trainer whose order of rows is the default, which the other tests' is not."""
    return trainer_for(output_dir, **{"train_sampling_strategy": "auto", **changes})


def test_it_is_the_default(tmp_path):
    assert DistillationTrainingArguments(output_dir=str(tmp_path)).train_sampling_strategy == "auto"


def test_text_is_grouped(tmp_path):
    trainer = default_trainer(
        tmp_path, rows=rows_for("single_label", lengths=[3, 9] * 8), per_device_train_batch_size=2
    )
    assert isinstance(sampler_of(trainer), ShuffledLengthGroups)
    widths = [set(batch["attention_mask"].sum(1).tolist()) for batch in trainer.get_train_dataloader()]
    assert len(widths) == 8 and sum(len(each) == 1 for each in widths) >= 6


def test_each_epoch_has_its_order_and_a_seed_of_the_data_its_own(tmp_path):
    trainer = default_trainer(
        tmp_path, rows=rows_for("single_label", lengths=[3, 9] * 8), max_steps=-1, num_train_epochs=3, data_seed=7
    )
    trainer.train()
    assert (trainer._length_groups.epoch, trainer._length_groups.seed) == (2, 7)


def same_length(task):
    return rows_for(task, lengths=[5] * 8)


@pytest.mark.parametrize(
    "changes, kind",
    [
        ({"train_sampling_strategy": "random"}, RandomSampler),
        ({"train_sampling_strategy": "sequential"}, SequentialSampler),
        ({"rows": same_length("single_label")}, RandomSampler),
        ({"rows": Unread()}, RandomSampler),
        ({"task": "images"}, RandomSampler),
        ({"objective": Objective({"classes": (1.0, IntraClassTerm())})}, RandomSampler),
        ({"objective": Objective({"rows": (1.0, RowRelationTerm())})}, RandomSampler),
        ({"objective": Objective({"contrast": (1.0, ContrastiveTerm())})}, RandomSampler),
    ],
)
def test_where_rows_are_not_grouped(tmp_path, changes, kind):
    assert isinstance(sampler_of(default_trainer(tmp_path, **changes)), kind)


def test_a_stream_keeps_its_order_without_a_warning(tmp_path):
    rows = Dataset.from_list([{"input_ids": [5] * length, "labels": 0} for length in (3, 9, 4, 8)])
    trainer = default_trainer(tmp_path, rows=rows.to_iterable_dataset(), per_device_train_batch_size=2)
    assert [batch["input_ids"].shape[1] for batch in trainer.get_train_dataloader()] == [9, 8]


def test_predictions_stay_in_the_order_of_the_rows(tmp_path):
    """Transformers groups rows by length in evaluation and prediction too, and does not put them back."""
    rows = rows_for("single_label", lengths=[3, 9, 4, 8] * 4)
    trainer = default_trainer(tmp_path, rows=rows)
    assert trainer.predict(rows).label_ids.tolist() == [row["labels"] for row in rows]

"""Batches of rows that are about as long as each other, so that less of them is padding."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute
import torch
from datasets import Dataset
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices

from hf_distill.finite_losses import FiniteLosses


ARROW_ROWS = 10_000
"""Rows whose lengths are read at a time."""


class ShuffledLengthGroups(LengthGroupedSampler):
    """Transformers' groups of rows of one length, in a random order, which the seed and the epoch alone decide.

    Transformers gives them from long to short, fifty times over, so that the loss goes up and down with them. The
    group with the longest row comes first here too: memory that does not suffice for it is missed at once.

    Args:
        batch_size: rows of a group. Ranks that step together share one.
        lengths: of each row.
        seed: of every order.

    Example:

        >>> lengths = [3, 9] * 40
        >>> [lengths[index] for index in ShuffledLengthGroups(4, lengths, seed=0)][:4]
        [9, 9, 9, 9]
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths)
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw another order."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        indices = get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)
        groups = torch.tensor(indices).split(self.batch_size)
        num_moved = max(0, len(indices) // self.batch_size - 1)  # a short one would shift the rows of those behind it
        moved = 1 + torch.randperm(num_moved, generator=generator)
        order = [0, *moved.tolist(), *range(1 + num_moved, len(groups))]
        return iter([index for group in order for index in groups[group].tolist()])


class LengthGrouping(FiniteLosses):
    """The half of [`DistillationTrainer`] that says in which order rows are trained on."""

    _length_groups: ShuffledLengthGroups | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int] | None:
        if self.args.train_sampling_strategy == "auto":
            dataset = self.train_dataset if train_dataset is None else train_dataset
            lengths = None if self._compares_rows() else num_tokens_of_rows(dataset)
            if lengths and min(lengths) < max(lengths):
                seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
                size = self._train_batch_size * self.args.world_size
                self._length_groups = ShuffledLengthGroups(size, lengths, seed)
                return self._length_groups
        sampler: torch.utils.data.Sampler[int] | None = super()._get_train_sampler(train_dataset)
        return sampler

    def _compares_rows(self) -> bool:
        """Whether it matters which rows are in a batch together."""
        terms = [weighted.term for weighted in self.distillation_objective.terms.values()]
        return self.head.compares_rows or any(term.compares_rows for term in terms)

    def _run_epoch(self, *, epoch: int, **kwargs: Any) -> None:  # type: ignore[override]  # called by keyword
        if self._length_groups is not None:
            self._length_groups.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, **kwargs)


def num_tokens_of_rows(dataset: Any) -> list[int] | None:
    """The tokens of each row of a data set that holds them; None where rows would have to be made to count them.

    Args:
        dataset: a `datasets.Dataset` without a transform, of whose columns only `input_ids` is read, or a list of
            rows. Of anything else nothing is read.

    Example:

        >>> num_tokens_of_rows([{"input_ids": [5, 6, 7]}, {"input_ids": [5]}])
        [3, 1]
    """
    if isinstance(dataset, Dataset):
        if dataset.format["type"] == "custom" or "input_ids" not in dataset.column_names:
            return None
        kind = dataset.data.schema.field("input_ids").type
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if not is_list or pa.types.is_nested(kind.value_type):  # several choices, or text that is no tokens yet
            return None
        tables = dataset.select_columns("input_ids").with_format("arrow").iter(ARROW_ROWS)
        return [length for table in tables for length in pa.compute.list_value_length(table["input_ids"]).to_pylist()]
    if not isinstance(dataset, list) or not all(_has_tokens(row) for row in dataset):
        return None
    return [len(row["input_ids"]) for row in dataset]


def _has_tokens(row: Any) -> bool:
    tokens = row.get("input_ids") if isinstance(row, Mapping) else None
    if isinstance(tokens, Sequence) and not isinstance(tokens, str):
        return not any(isinstance(token, Sequence) for token in tokens[:1])
    return getattr(tokens, "ndim", 0) == 1

"""`Trainer`, going on in a stream where it stopped."""

import json
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.imports import is_torchdata_stateful_dataloader_available
from datasets import IterableDataset as DatasetsStream
from datasets.iterable_dataset import BufferShuffledExamplesIterable
from torch.utils.data import DataLoader, IterableDataset
from transformers.trainer_utils import SaveStrategy, has_length

from hf_distill.length_grouping import LengthGrouping


class StreamResuming(LengthGrouping):
    """The half of [`DistillationTrainer`] that knows its place in a stream.

    A checkpoint holds, for each process, how often the stream was passed over and the batches read since; where
    torchdata is there, the state of its `StatefulDataLoader` too, from which a resumed run reads on. Else it reads the
    last pass from its start, and passes over these batches.
    """

    _place = (0, 0)
    """Passes over the stream, and batches of the current one."""
    _loader_state: dict[str, Any] | None = None
    """Where the first pass of a resumed run goes on."""

    def _init_training_state(
        self, max_steps: int, num_steps: int, num_epochs: int, resume_from_checkpoint: Any, trial: Any
    ) -> tuple[int, int]:
        start = super()._init_training_state(max_steps, num_steps, num_epochs, resume_from_checkpoint, trial)
        self._loader_state = None
        if resume_from_checkpoint is None or has_length(self.train_dataset) or self.args.ignore_data_skip:
            return start
        file = self._place_file(resume_from_checkpoint)
        if not file.is_file():
            return start
        kept = json.loads(file.read_text())
        if self.args.save_strategy == SaveStrategy.EPOCH:
            return kept["epoch"] + 1, 0
        if kept["readers"] == self._readers_of_the_stream():
            self._loader_state = kept["loader"]
        return kept["epoch"], kept["batches"]

    def _run_epoch(  # type: ignore[override]  # called by keyword
        self,
        *,
        epoch: int,
        train_dataloader: Any,
        epochs_trained: int,
        steps_trained_in_current_epoch: int,
        **kwargs: Any,
    ) -> None:
        skipped = steps_trained_in_current_epoch if epoch == epochs_trained else 0
        self._place = epoch, skipped
        loader = train_dataloader
        if self._loader_state is not None:
            rest: Any = []
            if not self._loader_state["_iterator_finished"]:
                loader.load_state_dict(self._loader_state)
                loader.set_epoch(epoch)
                rest = loader
            loader = DataLoader(_After(rest, skipped), batch_size=None, collate_fn=_as_it_is)
            self._loader_state = None
        super()._run_epoch(
            epoch=epoch,
            train_dataloader=loader,
            epochs_trained=epochs_trained,
            steps_trained_in_current_epoch=steps_trained_in_current_epoch,
            **kwargs,
        )

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        batches, counts = super().get_batch_samples(epoch_iterator, num_batches, device)
        epoch, read = self._place
        self._place = epoch, read + len(batches)
        return batches, counts

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if has_length(self.train_dataset):
            return
        epoch, batches = self._place
        loader: Any = self.callback_handler.train_dataloader
        state = _plain(loader.state_dict()) if loader.use_stateful_dataloader else None
        kept = {"epoch": epoch, "batches": batches, "readers": self._readers_of_the_stream(), "loader": state}
        self._place_file(output_dir).write_text(json.dumps(kept))

    def get_train_dataloader(self) -> DataLoader[Any]:
        config = self.accelerator.dataloader_config
        before, config.use_stateful_dataloader = config.use_stateful_dataloader, self._can_read_on()
        try:
            loader: DataLoader[Any] = super().get_train_dataloader()
        finally:
            config.use_stateful_dataloader = before
        adapter: Any = loader
        if adapter.use_stateful_dataloader:  # it draws a seed at some starts of a pass, and at others not
            adapter.base_dataloader.generator = torch.Generator().manual_seed(self.args.seed)
        return loader

    def _can_read_on(self) -> bool:
        """Whether the state of a data loader is all that there is to know.

        Rows in a shuffle buffer are lost with it, and where one process reads for all, it is ahead of what they have.
        Workers of `datasets` 5.2 cannot go on in a stream whose shards are shuffled.
        """
        largest_buffer = 0 if self.args.dataloader_num_workers else 1
        one_reads_for_all = self.accelerator.num_processes > 1 and self.accelerator.dispatch_batches is not False
        return (
            is_torchdata_stateful_dataloader_available()
            and not has_length(self.train_dataset)
            and _shuffle_buffer(self.train_dataset) <= largest_buffer
            and not one_reads_for_all
        )

    def _place_file(self, folder: str) -> Path:
        return Path(folder, f"stream_{self.args.process_index}.json")

    def _readers_of_the_stream(self) -> list[int]:
        """What the state of a data loader fits: processes, and workers of each."""
        return [self.args.world_size, self.args.dataloader_num_workers]


class _After(IterableDataset[Any]):
    """Batches, after placeholders for those that Transformers is about to pass over."""

    def __init__(self, batches: Any, skipped: int) -> None:
        self.batches, self.skipped = batches, skipped

    def __iter__(self) -> Iterator[Any]:
        yield from repeat(None, self.skipped)
        yield from self.batches


def _plain(state: dict[str, Any]) -> dict[str, Any] | None:
    """A state that comes back out of JSON as it was; none where a data set's own is no plain data."""
    try:
        return state if json.loads(json.dumps(state)) == state else None
    except TypeError:
        return None


def _as_it_is(batch: Any) -> Any:
    return batch


def _shuffle_buffer(dataset: Any) -> int:
    """The most rows of a stream of `datasets` that wait in a buffer, which is in no state; 0 without one."""
    waiting, largest = [dataset._ex_iterable] if isinstance(dataset, DatasetsStream) else [], 0
    while waiting:
        step: Any = waiting.pop()
        if isinstance(step, BufferShuffledExamplesIterable):
            largest = max(largest, step.buffer_size)
        waiting += [step.ex_iterable] if hasattr(step, "ex_iterable") else getattr(step, "ex_iterables", [])
    return largest

"""An end that is asked for by a signal: the step is finished, and a checkpoint of it written."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""What a scheduler sends before it takes the machine away, and Ctrl-C."""


class SaveOnSignal(TrainerCallback):
    """In place of Transformers' `JITCheckpointCallback`, which may save within a step, when random state and sums of
    losses are a step ahead of the weights, and of each process for itself.

    Several processes agree after every step, over gloo, so that no accelerator is waited for.
    """

    def __init__(self) -> None:
        self.received = 0
        """The number of the signal, 0 without one."""
        self._group: Any = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take note of the first signal. A second one does what it did before."""
        self.received = 0
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def give_back() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        def take_note(number: int, frame: Any) -> None:
            self.received = number
            give_back()

        try:
            for number in SIGNALS:
                signal.signal(number, take_note)
            yield
        finally:
            give_back()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End after this step. At the end of an epoch the checkpoint comes after what is done there."""
        if self._agreed(args):
            control.should_training_stop = True
            control.should_save |= not _is_whole(state.epoch)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """An epoch that is broken off has no end to be logged and evaluated."""
        if self.received:
            is_whole = _is_whole(state.epoch)
            control.should_save = is_whole
            control.should_log &= is_whole
            control.should_evaluate &= is_whole

    def _agreed(self, args: TrainingArguments) -> bool:
        if args.world_size > 1:
            self._group = self._group or distributed.new_group(backend="gloo")
            received = torch.tensor(self.received)
            distributed.all_reduce(received, distributed.ReduceOp.MAX, self._group)
            self.received = int(received)
        return self.received != 0


def _is_whole(epoch: float | None) -> bool:
    return epoch is not None and epoch == int(epoch)

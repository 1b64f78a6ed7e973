"""Which checkpoints of a run are whole, and stopping a run with one."""

import json
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging


logger = logging.get_logger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedBySignal(KeyboardInterrupt):
    """A run was stopped from outside, and left a checkpoint."""

    def __init__(self, signal_number: int, checkpoint: Path | None) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}; the run goes on from {checkpoint}")
        self.signal_number, self.checkpoint = signal_number, checkpoint


def last_checkpoint(folder: str | Path, num_processes: int = 1) -> Path | None:
    """The latest checkpoint that was written to its end, or None.

    The Trainer writes `trainer_state.json` last, so a checkpoint without it, or with half of it, is what a killed
    process left behind. With several processes each has a random state there.
    """
    checkpoints = sorted(_checkpoints(folder), key=_step_of, reverse=True)
    return next((each for each in checkpoints if _is_whole(each, num_processes)), None)


def remove_broken_checkpoints(folder: str | Path, num_processes: int = 1) -> None:
    """Take away what killed processes left behind, which would be mixed with what is written there next."""
    for checkpoint in _checkpoints(folder):
        if not _is_whole(checkpoint, num_processes):
            logger.warning(f"{checkpoint} was not written to its end, and is removed.")
            shutil.rmtree(checkpoint)


def _checkpoints(folder: str | Path) -> Iterator[Path]:
    return (each for each in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if re.search(r"-\d+$", each.name))


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _is_whole(checkpoint: Path, num_processes: int) -> bool:
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text())
    except (OSError, ValueError):
        return False
    return num_processes == 1 or all((checkpoint / f"rng_state_{rank}.pth").is_file() for rank in range(num_processes))


class StopOnSignal(TrainerCallback):
    """Ends training after the step during which Ctrl-C or SIGTERM came, with a checkpoint. A second one ends it there.

    Several processes agree on the step, on the CPU, so that all of them save the same one.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._group: Any = None

    @contextmanager
    def listening(self) -> Iterator["StopOnSignal"]:
        """Run the body with the two signals caught."""
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is not None:
            raise KeyboardInterrupt
        self.signal_number = number
        logger.warning(f"{signal.Signals(number).name}: the run stops after this step. Once more stops it at once.")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if self._agreed(args):
            control.should_save = control.should_training_stop = True
        return control

    def _agreed(self, args: TrainingArguments) -> bool:
        if args.world_size == 1:
            return self.signal_number is not None
        if self._group is None:
            self._group = torch.distributed.new_group(backend="gloo")
        noted = torch.tensor([self.signal_number or 0])
        torch.distributed.all_reduce(noted, torch.distributed.ReduceOp.MAX, group=self._group)
        self.signal_number = int(noted) or None
        return self.signal_number is not None

"""`Trainer`'s checkpoints, of which none is started from that is not whole."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from signal import SIGINT
from typing import Any

from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel, Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput, rotate_checkpoints, sort_checkpoints
from transformers.utils import logging

from hf_distill.checkpoints import MANIFEST, checkpoints, damage, is_unfinished, write_manifest
from hf_distill.errors import CheckpointError
from hf_distill.preemption import SaveOnSignal
from hf_distill.training_args import DistillationTrainingArguments


logger = logging.get_logger(__name__)


class CheckpointKeeping(Trainer):
    """The half of [`DistillationTrainer`] that writes checkpoints and chooses the one to go on from.

    Transformers writes them in place and takes the highest number. Here a manifest is written last, and nothing is
    deleted before it.
    """

    args: DistillationTrainingArguments
    model: nn.Module

    def __init__(
        self, model: PreTrainedModel | nn.Module | None, args: DistillationTrainingArguments, **kwargs: Any
    ) -> None:
        if args.should_save:
            output_dir = Path(str(args.output_dir))
            with _saying_what_to_do(output_dir):
                output_dir.mkdir(parents=True, exist_ok=True)
        super().__init__(model, args, **kwargs)
        self._on_signal: SaveOnSignal | None = None
        if getattr(args, "enable_jit_checkpoint", False):
            from transformers.trainer_jit_checkpoint import JITCheckpointCallback

            theirs: Any = self.pop_callback(JITCheckpointCallback)
            theirs.on_train_end(args, self.state, self.control)  # takes its signal handler away
            self._on_signal = SaveOnSignal()
            self.add_callback(self._on_signal)

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """`Trainer`'s, from a checkpoint that is whole.

        Args:
            resume_from_checkpoint: `True` for the last one in `args.output_dir` that is whole, or a path.

        Raises:
            CheckpointError: if the checkpoint that is asked for is damaged, or nothing can be written to the folder.
            KeyboardInterrupt: after Ctrl-C with `enable_jit_checkpoint`, when the checkpoint is written.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = self._last_whole_checkpoint()
        elif resume_from_checkpoint:
            self._check_whole(Path(resume_from_checkpoint))
        if self.args.should_save and self.args.save_strategy != "no":
            output_dir = Path(str(self.args.output_dir))
            with _saying_what_to_do(output_dir):
                output_dir.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=output_dir).close()
        with self._on_signal.listening() if self._on_signal else nullcontext():
            output = super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)
        if self._on_signal and self._on_signal.received == SIGINT:
            raise KeyboardInterrupt
        return output

    def _last_whole_checkpoint(self) -> str | bool | None:
        """The same on every process. One that was never finished is passed over with a warning, as is a damaged one.

        Returns:
            `True`, about which Transformers complains, if there is no checkpoint; `None` if none was ever finished.
        """
        (found,) = broadcast_object_list([checkpoints(str(self.args.output_dir))])
        damaged = []
        for folder in found:
            fault = _fault_of(folder) if self.args.should_save else None
            faults = [each for each in gather_object([fault]) if each is not None]
            if not faults:
                return str(folder)
            logger.warning(f"{folder} is passed over: {faults[0]}.")
            damaged += [folder] if any(each != UNFINISHED for each in faults) else []
        if damaged:
            raise CheckpointError(
                f"no checkpoint in {self.args.output_dir} is whole; these are damaged: "
                f"{', '.join(folder.name for folder in damaged)} (see the warnings). Restore one of them, or start "
                "anew with `resume_from_checkpoint=False`."
            )
        if found:
            logger.warning("No checkpoint was ever finished, so training starts anew.")
        return None if found else True

    def _check_whole(self, folder: Path) -> None:
        fault = _fault_of(folder) if self.args.should_save else None
        fault = next((each for each in gather_object([fault]) if each is not None), None)
        if fault is not None:
            raise CheckpointError(
                f"the checkpoint {folder} cannot be gone on from: {fault}. `resume_from_checkpoint=True` takes the "
                "last one that is whole."
            )

    # ---- Writing ----------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        run_dir = Path(self._get_output_dir(trial))
        folder = run_dir / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        limit, self.args.save_total_limit = self.args.save_total_limit, None  # nothing is deleted too early
        try:
            with _saying_what_to_do(run_dir):
                if self.args.should_save:
                    (folder / MANIFEST).unlink(missing_ok=True)
                super()._save_checkpoint(model, trial)
                if not self.args.push_to_hub:
                    self._finish_checkpoint(folder)
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            self._delete_older_checkpoints(folder)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        self._finish_checkpoint(Path(checkpoint_folder))
        super()._push_from_checkpoint(checkpoint_folder)

    def _finish_checkpoint(self, folder: Path) -> None:
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            write_manifest(folder)

    def _delete_older_checkpoints(self, newest: Path) -> None:
        """By `save_total_limit`; on file systems without times, not while one that was passed over counts as newer."""
        best = self.state.best_model_checkpoint
        if Path(sort_checkpoints(str(newest.parent), use_mtime=True)[-1]) == newest:
            rotate_checkpoints(
                str(newest.parent), self.args.save_total_limit, best_model_checkpoint=best, use_mtime=True
            )


UNFINISHED = "it was never finished"


def _fault_of(folder: Path) -> str | None:
    """Why training cannot go on from this checkpoint."""
    if not folder.is_dir():
        return "there is no such folder"
    if is_unfinished(folder):
        return UNFINISHED
    if not (folder / MANIFEST).is_file():
        logger.warning(f"{folder} has no {MANIFEST}, so whether it is whole is not known.")
    return "; ".join(damage(folder)) or None


@contextmanager
def _saying_what_to_do(folder: Path) -> Iterator[None]:
    """Turn the errors of Python, safetensors and torch about a file that cannot be written into one of ours."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        is_of_a_file = isinstance(error, SafetensorError) or "inline_container" in str(error)
        if is_of_a_file or (isinstance(error, OSError) and error.errno is not None):
            raise CheckpointError(_what_to_do(folder, error)) from error
        raise


def _what_to_do(folder: Path, error: Exception) -> str:
    parent = next((path for path in (folder, *folder.parents) if path.is_dir()), Path(folder.anchor))
    free = shutil.disk_usage(parent).free
    whole = next((path for path in checkpoints(folder) if (path / MANIFEST).is_file()), None)
    after = f"{whole} is whole, and `resume_from_checkpoint=True` goes on from it." if whole else ""
    writable = "" if os.access(parent, os.W_OK) else " and may not be written to"
    return (
        f"{folder} cannot be written ({type(error).__name__}: {error}); {parent} has {free / 2**20:.0f} MiB left"
        f"{writable}. Make room, keep fewer checkpoints (`save_total_limit=`, which needs room for one more), leave "
        f"the optimizer out (`save_only_model=True`), or choose another `output_dir`. {after}"
    ).strip()

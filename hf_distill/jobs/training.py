"""Training that can be stopped and goes on, and measuring."""

import copy
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, TrainerState, set_seed
from transformers.trainer import TRAINER_STATE_NAME

from hf_distill.checkpoints import checkpoints, is_unfinished
from hf_distill.errors import ConfigurationError
from hf_distill.jobs.data import Data
from hf_distill.objective import Objective
from hf_distill.preemption import SaveOnSignal
from hf_distill.processing import Reading
from hf_distill.recipes import hinton
from hf_distill.teachers import CachedTeacher
from hf_distill.trainer import DistillationTrainer
from hf_distill.training_args import DistillationTrainingArguments


LABELS_ALONE: dict[str, Any] = {"alpha": 1.0, "preflight": False, "report_agreement": False, "push_to_hub": False}
"""The arguments of a Trainer without a teacher. The student that is compared is not what is pushed."""

TRIAL: dict[str, Any] = {
    "save_strategy": "no",
    "eval_strategy": "no",
    "load_best_model_at_end": False,
    "report_to": [],
    "preflight": False,
    "push_to_hub": False,
}
"""The arguments of a training of which nothing is kept."""


def trainer_for(
    model: PreTrainedModel | None,
    data: Data,
    reading: Reading,
    args: DistillationTrainingArguments,
    teacher: PreTrainedModel | CachedTeacher | None = None,
    objective: Objective | None = None,
    teacher_processor: Any = None,
    model_init: Callable[..., PreTrainedModel] | None = None,
    **changes: Any,
) -> DistillationTrainer:
    """A Trainer of `model`, or of what `model_init` makes, on the data of a job.

    Args:
        teacher_processor: the teacher's own, where it reads other inputs than the student.
        changes: fields of `args` that are other for this Trainer.

    Raises:
        ConfigurationError: if labels are learnt from, and no column of the data set holds any.
    """
    args = copy.copy(args)
    for name, value in changes.items():
        setattr(args, name, value)
    reads_labels = (objective or hinton(args.temperature, args.alpha)).requires.labels
    if data.train is not None and not data.has_labels and reads_labels:
        alone = "" if teacher is None else ", or learn from the teacher alone, as `alpha=0` does"
        raise ConfigurationError(
            f"no column of labels was found, and they are learnt from: the data set has the columns "
            f"{', '.join(data.train.column_names)}. Name it by `label_column`{alone}."
        )
    args.dataloader_pin_memory = args.dataloader_pin_memory and args.device.type != "cpu"  # which torch warns of
    args.enable_jit_checkpoint = model_init is None  # Ctrl-C and SIGTERM leave a checkpoint, or else end a search
    args.prediction_loss_only = data.task.scores is None
    args.remove_unused_columns = args.remove_unused_columns and not data.task.reads_raw
    return DistillationTrainer(
        model=model,
        model_init=model_init,
        teacher=teacher,
        args=args,
        objective=objective,
        teacher_processing_class=teacher_processor,
        teacher_columns=reading.text_columns if teacher_processor is not None and reading.text_columns else None,
        **data.trainer_arguments(reading),
    )


class StoppedBySignal(KeyboardInterrupt):
    """A job was stopped from outside, and left a checkpoint."""

    def __init__(self, signal_number: int, checkpoint: Path | None) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}; the run goes on from {checkpoint}")
        self.signal_number, self.checkpoint = signal_number, checkpoint


def train(trainer: DistillationTrainer, resume: bool) -> None:
    """Train to the end, and save the model with its processor in the Trainer's folder.

    Raises:
        StoppedBySignal: if Ctrl-C or SIGTERM came meanwhile; there is a checkpoint then.
    """
    folder = str(trainer.args.output_dir)
    asked = next(each for each in trainer.callback_handler.callbacks if isinstance(each, SaveOnSignal))
    set_seed(trainer.args.seed)  # whatever was measured before, or was not since an earlier run had done it
    try:
        trainer.train(resume_from_checkpoint=True if resume and checkpoints(folder) else None)
    except KeyboardInterrupt:
        if not asked.received:
            raise
    if asked.received:
        finished = (each for each in checkpoints(folder) if not is_unfinished(each))
        raise StoppedBySignal(asked.received, next(finished, None))
    trainer.save_model(folder)


def measure(trainer: DistillationTrainer) -> Mapping[str, Any]:
    """The scores of the Trainer's model, without the prefix `eval_`, with how large it is."""
    start = time.perf_counter()
    metrics = trainer.evaluate()
    seconds = time.perf_counter() - start
    model: Any = trainer.model
    parts = [*model.parameters(), *model.buffers()]
    apart = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
    names = {name: name.removeprefix("eval_") for name in metrics}
    return {
        "parameters": model.num_parameters(),
        "bytes": sum(part.numel() * part.element_size() for part in parts),
        "seconds": seconds,
        "scores": {short: metrics[name] for name, short in names.items() if short not in (*apart, "epoch")},
    }


def measure_trained(trainer: DistillationTrainer) -> Mapping[str, Any]:
    """`measure`, after which what was logged is in the Trainer's folder."""
    found = measure(trainer)
    trainer.save_state()
    return found


def load_state(trainer: DistillationTrainer, folder: str | Path) -> None:
    """What a training that has ended in a folder has logged, if it has left that there."""
    path = Path(folder) / TRAINER_STATE_NAME
    if path.is_file():
        trainer.state = TrainerState.load_from_json(str(path))

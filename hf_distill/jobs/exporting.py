"""A model exported, and tried on the rows of a job."""

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, replace
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import PreTrainedModel
from transformers.utils.logging import get_logger

from hf_distill.errors import ConfigurationError
from hf_distill.export import MANIFEST, TOLERANCE, Export, export_model, measured_export
from hf_distill.jobs.data import Data
from hf_distill.jobs.evidence import Evidence
from hf_distill.jobs.models import load_model, load_processor
from hf_distill.jobs.training import LABELS_ALONE, trainer_for
from hf_distill.training_args import DistillationTrainingArguments
from hf_distill.trial_batches import collated, sampled_rows


logger = get_logger(__name__)

EXPORTS = "exports"
"""The folder of the programs, in that of the job."""

PROGRAMS: Mapping[str, Mapping[str, Any]] = {
    "onnx": {"format": "onnx"},
    "onnx-int8": {"format": "onnx", "int8": True},
    "torch": {"format": "torch"},
}
"""Folder → arguments of `export_model`."""


def export(
    name_or_path: str, data: Data, path: str | Path, num_rows: int = 100, batch_size: int = 8, **options: Any
) -> Export:
    """Export a model by [`export_model`], compared with it on rows of the evaluation data, spread evenly.

    Args:
        name_or_path: of the model.
        data: with the rows.
        path: the folder to write.
        num_rows: how many rows.
        batch_size: rows at a time.
        options: further arguments of `export_model`.
    """
    model = load_model(name_or_path, data.task_name)
    processor = load_processor(name_or_path, data.task_name)
    batches = _batches(model, processor, data, num_rows, batch_size)
    with _quiet_exporters():
        exported = export_model(model, batches, path, **options)
    processor.save_pretrained(path)
    return exported


@contextmanager
def _quiet_exporters() -> Iterator[None]:
    """Without the pages that exporters say of themselves: the program is compared with the model afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _batches(
    model: PreTrainedModel, processor: Any, data: Data, num_rows: int, batch_size: int
) -> list[Mapping[str, Any]]:
    """Rows of the evaluation data, spread evenly, as the model reads them."""
    data = replace(data, train=None)
    with TemporaryDirectory() as folder:
        args = DistillationTrainingArguments(output_dir=folder, use_cpu=True, dataloader_pin_memory=False)
        trainer = trainer_for(model, data, data.reading(model, processor), args, **LABELS_ALONE)
        rows = sampled_rows(trainer.eval_dataset, num_rows)
        starts = range(0, len(rows), batch_size)
        batches = [collated(trainer, rows[start : start + batch_size], for_evaluation=True) for start in starts]
        return [{**batch, **trainer.head.derived_inputs(model, batch)} for batch in batches]


@dataclass(frozen=True)
class Programs:
    """A model in every way in which it could be exported."""

    made: tuple[Export, ...] = ()
    missing: tuple[str, ...] = ()
    """For each way in which it could not, a sentence that says why."""


NO_PROGRAMS = Programs()


def programs_of(
    name_or_path: str, data: Data, folder: str | Path, evidence: Evidence, batch_size: int = 8
) -> Programs:
    """Export a model in every way there is, and keep each as soon as it is there.

    What cannot be exported, since a library is missing or knows no way for this model, is no reason for a job to fail.
    """
    made, missing = [], []
    for name, options in PROGRAMS.items():

        def measured(path: Path = Path(folder) / name, options: Mapping[str, Any] = options) -> Mapping[str, Any]:
            return {**asdict(export(name_or_path, data, path, batch_size=batch_size, **options)), "path": str(path)}

        if f"export {name}" not in evidence.found:
            evidence.tell(f"The student is exported: {name}.")
        try:
            found = evidence.measured(f"export {name}", measured)
        except Exception as error:  # of whichever library
            reason = " ".join(str(error).split()) or type(error).__name__
            missing.append(f"The student was not exported as {name}: {reason}")
            logger.warning(missing[-1])
        else:
            made.append(Export(**{**found, "path": Path(found["path"])}))
    return Programs(tuple(made), tuple(missing))


def programs_in(
    folders: Iterable[str | Path], name_or_path: str, data: Data, num_rows: int = 100, batch_size: int = 8
) -> Programs:
    """Programs that were written before, compared with the model that they were made of.

    Args:
        folders: of a program, or of several.
        name_or_path: of the model.
        data: with the rows.
        num_rows: how many rows.
        batch_size: rows at a time.

    Raises:
        ConfigurationError: if a folder holds none.
    """
    paths = list(dict.fromkeys(path.resolve() for folder in folders for path in _programs(Path(folder))))
    if not paths:
        return NO_PROGRAMS
    model = load_model(name_or_path, data.task_name)
    batches = _batches(model, load_processor(name_or_path, data.task_name), data, num_rows, batch_size)
    made, missing = [], []
    for path in paths:
        try:
            with _quiet_exporters():
                measured = measured_export(model, batches, path)
        except Exception as error:  # of whichever library runs it
            missing.append(f"The program {path.name} was not measured: {' '.join(str(error).split())}")
            continue
        made.append(measured)
        if not measured.int8 and not measured.max_difference <= TOLERANCE:
            missing.append(
                f"The program {path.name} differs from the student by {measured.max_difference:.2g}, more than by "
                "rounding: it may be one of another student, or of an earlier training."
            )
    return Programs(tuple(made), tuple(missing))


def _programs(folder: Path) -> list[Path]:
    found = [folder] if (folder / MANIFEST).is_file() else sorted(each.parent for each in folder.glob(f"*/{MANIFEST}"))
    if not found:
        raise ConfigurationError(
            f"exports={str(folder)!r} holds no program. Name the folder that `hf-distill export` has written, or one "
            "of several such folders."
        )
    return found

"""What a finished job shows: the report of teacher, student and baseline, and the student's card."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree

from torch import nn
from transformers.utils import logging

from hf_distill.errors import ConfigurationError
from hf_distill.jobs.exporting import NO_PROGRAMS, Programs
from hf_distill.report import DistillationReport, distillation_report
from hf_distill.report.results import LeaveOneOut
from hf_distill.trainer import DistillationTrainer
from hf_distill.whole_files import move_whole, write_whole


logger = logging.get_logger(__name__)

REPORT = "report"
"""The folder of the report, in that of the job."""
JSON = "report.json"
"""By which a report is known."""


def write_report(
    trainer: DistillationTrainer,
    baseline: nn.Module | None,
    programs: Programs = NO_PROGRAMS,
    trials: LeaveOneOut | None = None,
) -> None:
    """Write the report and the card into the folder of a Trainer that has trained.

    Several processes write none: it is made in one.
    """
    if trainer.accelerator.num_processes > 1:
        logger.warning("No report is written by several processes. Make it in one, by `distillation_report`.")
        return
    report = distillation_report(trainer, baseline, exports=programs.made)
    report = replace(report, notes=(*report.notes, *programs.missing), left_out=trials)
    trainer.create_model_card(report=report)
    save_report(report, Path(str(trainer.args.output_dir)) / REPORT)


def save_report(report: DistillationReport, folder: Path) -> None:
    """Write a report as a folder that is there as a whole or not at all, in place of an earlier one.

    Where Matplotlib is not installed it has no page and no plots.
    """
    aside = folder.with_name(f"{folder.name}.tmp")  # a folder that is there is whole
    if find_spec("matplotlib") is not None:
        report.save(aside)
    else:
        logger.warning("Matplotlib is not installed, so the report has no page. `pip install matplotlib` brings it.")
        write_whole(aside / "report.md", report.to_markdown())
        write_whole(aside / JSON, report.to_json())
    if folder.exists():
        rmtree(folder)
    move_whole(aside, folder)


def check_report_folder(folder: Path) -> None:
    """A report may be written there.

    Raises:
        ConfigurationError: if the folder holds something else, which would be lost.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / JSON).is_file())):
        raise ConfigurationError(
            f"output_dir={str(folder)!r} holds something else than a report, which would be lost. Name a new folder."
        )

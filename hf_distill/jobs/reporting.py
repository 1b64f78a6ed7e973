"""What a finished job shows: the report of teacher, student and baseline, and the student's card."""

from importlib.util import find_spec
from pathlib import Path

from torch import nn
from transformers.utils import logging

from hf_distill.report import distillation_report
from hf_distill.trainer import DistillationTrainer
from hf_distill.whole_files import move_whole, write_whole


logger = logging.get_logger(__name__)

REPORT = "report"
"""The folder of the report, in that of the job."""


def write_report(trainer: DistillationTrainer, baseline: nn.Module | None) -> None:
    """Write the report and the card into the folder of a Trainer that has trained.

    Where Matplotlib is not installed the report has no page and no plots. Several processes write none: it is made
    in one.
    """
    if trainer.accelerator.num_processes > 1:
        logger.warning("No report is written by several processes. Make it in one, by `distillation_report`.")
        return
    report = distillation_report(trainer, baseline)
    trainer.create_model_card(report=report)
    folder = Path(str(trainer.args.output_dir)) / REPORT
    aside = folder.with_name(f"{REPORT}.tmp")  # a folder that is there is whole
    if find_spec("matplotlib") is not None:
        report.save(aside)
    else:
        logger.warning("Matplotlib is not installed, so the report has no page. `pip install matplotlib` brings it.")
        write_whole(aside / "report.md", report.to_markdown())
        write_whole(aside / "report.json", report.to_json())
    move_whole(aside, folder)

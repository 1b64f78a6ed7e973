"""The report of a distillation, made by the trainer's own teacher, student, head and data."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from hf_distill.report.results import DistillationReport


def distillation_report(
    trainer: Any,
    baseline: PreTrainedModel | None = None,
    eval_dataset: Any = None,
    *,
    confidence: float = 0.95,
    num_resamples: int = 1000,
    batch_sizes: Sequence[int] = (1, 8, 32),
    lengths: Sequence[int] | None = None,
    num_examples: int = 12,
    seed: int = 0,
) -> DistillationReport:
    """Teacher and student of a [`DistillationTrainer`] side by side, on the same rows.

    Args:
        trainer: after training, or made for the report of two models that are trained already.
        baseline: the student that learned from the labels alone, of the student's classes and inputs. With it the
            report says whether distilling helped.
        eval_dataset: the rows; those of the trainer by default, the first set of several.
        confidence: of the intervals, between 0 and 1.
        num_resamples: of the bootstrap and of the test.
        batch_sizes: at which forward passes are timed; none leaves the timing out.
        lengths: tokens of a row at which they are timed; the median and the longest of the rows by default.
        num_examples: rows to show on which the models differ.
        seed: of the resampling.
    """
    raise NotImplementedError

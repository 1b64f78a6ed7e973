"""Whether a model is as often right as it says, as a module of `evaluate`."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from hf_distill.report.row_sums import NUM_BINS
from hf_distill.report.statistics import calibration_error


DESCRIPTION = """The expected calibration error of Guo et al. 2017: the mean over bins of confidence of
|accuracy − confidence|, weighed by the share of the rows."""


class Calibration(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
    """`compute(predictions=rows of probabilities, references=classes)` → `{"calibration_error": error}`."""

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.Sequence(datasets.Value("float64")),
            "references": datasets.Value("int64"),
        }
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="https://arxiv.org/abs/1706.04599",
            inputs_description="predictions: rows of probabilities, one for each class; references: the true classes.",
            features=datasets.Features(features),
        )

    def _compute(self, predictions: Sequence[Sequence[float]], references: Sequence[int]) -> dict[str, float]:
        probabilities = np.asarray(predictions, dtype=np.float64)
        confidence, choice = probabilities.max(1), probabilities.argmax(1)
        bins = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
        values = {"answers": np.ones_like(confidence), "confidence": confidence}
        values["correct"] = (choice == np.asarray(references)).astype(np.float64)
        sums = {f"bin_{name}": np.bincount(bins, each, NUM_BINS)[None].astype(float) for name, each in values.items()}
        return {"calibration_error": float(calibration_error(sums)[0])}

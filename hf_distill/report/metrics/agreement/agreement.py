"""How often a student chooses its teacher's class, as a module of `evaluate`."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np


DESCRIPTION = "The share of rows for which a student chooses the same class as its teacher, right or wrong."


class Agreement(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
    """`compute(predictions=student's classes, references=teacher's classes)` → `{"agreement": share}`."""

    def _info(self) -> evaluate.MetricInfo:
        features = {name: datasets.Value("int64") for name in ("predictions", "references")}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description="predictions: the student's classes; references: the teacher's.",
            features=datasets.Features(features),
        )

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"agreement": float(np.mean(np.asarray(predictions) == np.asarray(references)))}

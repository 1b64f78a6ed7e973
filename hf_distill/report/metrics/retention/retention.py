"""Which share of its teacher's accuracy a student keeps, as a module of `evaluate`."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np


DESCRIPTION = "A student's accuracy over that of its teacher on the same rows."


class Retention(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
    """`compute(predictions=student's, teacher_predictions=teacher's, references=labels)` → `{"retention": share}`."""

    def _info(self) -> evaluate.MetricInfo:
        names = ("predictions", "teacher_predictions", "references")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description="predictions, teacher_predictions: classes of student and teacher; references: labels.",
            features=datasets.Features({name: datasets.Value("int64") for name in names}),
        )

    def _compute(
        self, predictions: Sequence[int], teacher_predictions: Sequence[int], references: Sequence[int]
    ) -> dict[str, float]:
        student, teacher = (
            float(np.mean(np.asarray(each) == np.asarray(references))) for each in (predictions, teacher_predictions)
        )
        return {"retention": student / teacher if teacher else float("nan")}

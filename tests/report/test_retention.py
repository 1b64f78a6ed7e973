"""The metric `retention` by `evaluate`, loaded without a network."""

import math

from hf_distill.report import metrics


def test_retention():
    metric = metrics.load("retention")
    labels = [0, 1, 2, 3]
    answers = {"predictions": [0, 1, 0, 0], "teacher_predictions": [0, 1, 2, 0]}
    assert metric.compute(**answers, references=labels) == {"retention": 2 / 3}
    answers["teacher_predictions"] = [9, 9, 9, 9]
    assert math.isnan(metric.compute(**answers, references=labels)["retention"])

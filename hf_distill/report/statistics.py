"""The metrics of each kind of head, as functions of sums over rows."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from hf_distill.heads import (
    CTCHead,
    Head,
    MultiLabelHead,
    QuestionAnsweringHead,
    RegressionHead,
    SemanticSegmentationHead,
    TokenClassificationHead,
)
from hf_distill.report.resampling import Array, Statistic, Sums


class Metric(NamedTuple):
    """A metric of a task."""

    statistic: Statistic
    reads: str
    """A sum that is there only if the rows have what the metric reads."""
    higher_is_better: bool = True


def accuracy(sums: Sums) -> Array:
    """Right answers over all answers."""
    return _ratio(sums, "correct", "answers")


def perplexity(sums: Sums) -> Array:
    """exp of the mean negative log-likelihood."""
    value: Array = np.exp(np.minimum(_ratio(sums, "nll", "answers"), 700.0))
    return value


def class_f1(sums: Sums) -> Array:
    """F1 of each class, `(n, C)`; NaN where nobody names the class."""
    named = sums["labelled"] + sums["chosen"]
    value: Array = np.where(named > 0, 2 * sums["hits"] / named, np.nan)
    return value


def macro_f1(sums: Sums) -> Array:
    """The mean of F1 over the classes that anybody names."""
    scores = class_f1(sums)
    value: Array = np.nansum(scores, axis=1) / np.isfinite(scores).sum(axis=1)
    return value


def micro_f1(sums: Sums) -> Array:
    """F1 of all yeses together."""
    hits, labelled, chosen = (sums[name].sum(axis=1) for name in ("hits", "labelled", "chosen"))
    value: Array = 2 * hits / (labelled + chosen)
    return value


def mean_iou(sums: Sums) -> Array:
    """The mean over classes of intersection over union."""
    union = sums["labelled"] + sums["chosen"] - sums["hits"]
    shares = np.where(union > 0, sums["hits"] / union, np.nan)
    value: Array = np.nansum(shares, axis=1) / np.isfinite(shares).sum(axis=1)
    return value


def mean_squared_error(sums: Sums) -> Array:
    """Over rows and outputs."""
    value: Array = (sums["yy"] - 2 * sums["xy"] + sums["xx"]).mean(axis=1) / sums["rows"][:, 0]
    return value


def pearson(sums: Sums) -> Array:
    """The correlation of outputs x and labels y, the mean over outputs."""
    n = sums["rows"]
    covariance = sums["xy"] - sums["x"] * sums["y"] / n
    spread = (sums["xx"] - sums["x"] ** 2 / n) * (sums["yy"] - sums["y"] ** 2 / n)
    value: Array = (covariance / np.sqrt(spread)).mean(axis=1)
    return value


def exact_match(sums: Sums) -> Array:
    """Answers whose first and last token are both right."""
    return _ratio(sums, "exact", "spans")


def span_f1(sums: Sums) -> Array:
    """F1 of the tokens of an answer, the mean over answers."""
    return _ratio(sums, "overlap", "spans")


def token_error_rate(sums: Sums) -> Array:
    """Tokens to insert, delete or replace, over the tokens of the transcripts."""
    return _ratio(sums, "edits", "written")


def agreement(sums: Sums) -> Array:
    """Share of positions at which a model chooses the teacher's class."""
    return _ratio(sums, "agreed", "compared")


def kl_to_teacher(sums: Sums) -> Array:
    """KL(teacher ‖ model) per position."""
    return _ratio(sums, "kl", "compared")


def distance_to_teacher(sums: Sums) -> Array:
    """Root of the mean squared difference of the outputs."""
    value: Array = np.sqrt(_ratio(sums, "squared_distance", "compared"))
    return value


def calibration_error(sums: Sums) -> Array:
    """The expected calibration error: Σ over bins of |right answers − confidence| / answers.

    References:
        Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, 2017,
        https://arxiv.org/abs/1706.04599, equation 3, with 15 bins.
    """
    gaps = np.abs(sums["bin_correct"] - sums["bin_confidence"])
    value: Array = gaps.sum(axis=1) / sums["bin_answers"].sum(axis=1)
    return value


def metrics_of(head: Head, sums: Sums) -> Mapping[str, Metric]:
    """The metrics of a head that these sums allow, the first one first; none without labels, or for a head of which
    no metric of single rows is known."""
    return {name: metric for name, metric in _known_metrics(head).items() if metric.reads in sums}


def _known_metrics(head: Head) -> Mapping[str, Metric]:
    right, macro = Metric(accuracy, "answers"), Metric(macro_f1, "hits")
    if isinstance(head, RegressionHead):
        return {"pearson": Metric(pearson, "xy"), "mean_squared_error": Metric(mean_squared_error, "xy", False)}
    if isinstance(head, QuestionAnsweringHead):
        return {"exact_match": Metric(exact_match, "spans"), "f1": Metric(span_f1, "spans")}
    if isinstance(head, CTCHead):
        return {"token_error_rate": Metric(token_error_rate, "written", False)}
    if isinstance(head, MultiLabelHead):
        return {"micro_f1": Metric(micro_f1, "hits"), "macro_f1": macro, "accuracy": right}
    if isinstance(head, SemanticSegmentationHead):
        return {"mean_iou": Metric(mean_iou, "hits"), "accuracy": right}
    if isinstance(head, TokenClassificationHead):
        return {"macro_f1": macro, "accuracy": right}
    if head.is_language_model:
        return {"perplexity": Metric(perplexity, "answers", False), "accuracy": right}
    return {"accuracy": right, "macro_f1": macro}


def _ratio(sums: Sums, numerator: str, denominator: str) -> Array:
    value: Array = sums[numerator][:, 0] / sums[denominator][:, 0]
    return value

"""How good a model's answers are, by what they are answers to."""

from collections.abc import Callable
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from transformers import EvalPrediction

from hf_distill.processing.reading import Reading
from hf_distill.types import IGNORED_LABEL


Scores = Callable[[EvalPrediction], dict[str, float]]


def class_scores(rows: Dataset, reading: Reading) -> Scores:
    """Accuracy and F1 of classes; for a regression the squared error and Pearson's correlation.

    They are called as a report calls them.
    """

    def scores(prediction: EvalPrediction) -> dict[str, float]:
        logits, labels = _first(prediction.predictions), np.asarray(prediction.label_ids)
        if reading.problem == "regression":
            guesses = logits.reshape(len(labels), -1)[:, 0]
            error = float(np.mean((guesses - labels) ** 2))
            is_constant = np.ptp(guesses) == 0 or np.ptp(labels) == 0
            return {
                "mean_squared_error": error,
                "pearson": 0.0 if is_constant else float(np.corrcoef(guesses, labels)[0, 1]),
            }
        if reading.problem == "multi_label_classification":
            chosen, true = logits > 0, labels > 0.5
            hits = int((chosen & true).sum())
            return {
                "exact_match": float((chosen == true).all(-1).mean()),
                "micro_f1": 2 * hits / max(int(chosen.sum() + true.sum()), 1),
            }
        counted = labels != IGNORED_LABEL
        guesses, truths = logits.argmax(-1)[counted], labels[counted]
        if not len(truths):  # of the rows that a report draws, for one
            return {"accuracy": float("nan"), "macro_f1": float("nan")}
        return {"accuracy": float((guesses == truths).mean()), "macro_f1": macro_f1(guesses, truths)}

    return scores


def macro_f1(guesses: NDArray[Any], truths: NDArray[Any]) -> float:
    """The mean over the classes that occur, in either, of 2 · hits / (guesses + truths)."""
    classes = np.union1d(guesses, truths)
    hits = [2 * ((guesses == each) & (truths == each)).sum() for each in classes]
    sizes = [(guesses == each).sum() + (truths == each).sum() for each in classes]
    return float(np.mean(np.array(hits) / np.array(sizes)))


def _first(predictions: Any) -> NDArray[Any]:
    """The class scores, where a model returns more than them."""
    return np.asarray(predictions[0] if isinstance(predictions, (tuple, list)) else predictions)

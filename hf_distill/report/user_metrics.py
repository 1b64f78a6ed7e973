"""Metrics of a trainer's own `compute_metrics`, with intervals and tests by resampling rows."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers import EvalPrediction, Trainer

from hf_distill.heads.alignment import Alignment
from hf_distill.report.results import Comparison, Estimate, MetricResult


LOWER_IS_BETTER = ("loss", "error", "perplexity", "wer", "cer", "mse", "mae")
"""What stands in the names of metrics of which less is better."""

Metrics = Mapping[str, float]
Rows = NDArray[np.int64]


def user_metrics(
    trainer: Any,
    models: Mapping[str, nn.Module | None],
    dataset: Any,
    num_resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, MetricResult]:
    """What the trainer's `compute_metrics` says of each model, which is called once for each resample of the rows.

    A teacher that reads other inputs, or has its classes in another order, is left out: `compute_metrics` knows
    nothing of either. Nothing is measured where metrics are computed batch by batch.
    """
    if trainer.args.batch_eval_metrics:
        return {}
    is_comparable = trainer._teacher_inputs is None and type(trainer._alignment) is Alignment
    answers = {
        name: _predictions(trainer, model, dataset)
        for name, model in models.items()
        if model is not None and (name != "teacher" or is_comparable)
    }
    measure, num_rows = trainer.compute_metrics, _num_rows(answers["student"])
    generator = np.random.default_rng(seed)
    drawn = [generator.integers(num_rows, size=num_rows) for _ in range(num_resamples)]
    observed = {name: measure(EvalPrediction(*answer)) for name, answer in answers.items()}
    resampled = {
        name: [measure(EvalPrediction(*_map(lambda array, rows=rows: array[rows], answer))) for rows in drawn]
        for name, answer in answers.items()
    }
    swapped = {
        other: [_swapped(measure, answers["student"], answers[other], generator) for _ in range(num_resamples)]
        for other in ("teacher", "baseline")
        if other in answers
    }
    names = [name for name, value in observed["student"].items() if np.isscalar(value)]
    return {
        name: _result(
            higher_is_better(name, trainer.args),
            {model: float(values[name]) for model, values in observed.items()},
            {model: np.array([each[name] for each in values], dtype=float) for model, values in resampled.items()},
            {other: np.array([one[name] - two[name] for one, two in pairs]) for other, pairs in swapped.items()},
            confidence,
        )
        for name in names
    }


def higher_is_better(name: str, args: Any) -> bool:
    """What the arguments say of it, if it chooses the best checkpoint; else by its name."""
    if args.greater_is_better is not None and (args.metric_for_best_model or "").removeprefix("eval_") == name:
        return bool(args.greater_is_better)
    return not any(word in name.lower() for word in LOWER_IS_BETTER)


def _predictions(trainer: Any, model: nn.Module, dataset: Any) -> tuple[Any, Any]:
    """Predictions and labels, as `Trainer.predict` gives them to `compute_metrics`."""
    args = copy.copy(trainer.args)
    args.report_to, args.push_to_hub, args.eval_strategy = [], False, "no"
    predictor = Trainer(
        model=model,
        args=args,
        data_collator=trainer.data_collator,
        processing_class=trainer.processing_class,
        preprocess_logits_for_metrics=trainer.preprocess_logits_for_metrics,
    )
    output = predictor.predict(dataset)
    return output.predictions, output.label_ids


def _result(
    higher: bool,
    observed: Mapping[str, float],
    resampled: Mapping[str, NDArray[np.float64]],
    swapped: Mapping[str, NDArray[np.float64]],
    confidence: float,
) -> MetricResult:
    def estimate(value: float, values: NDArray[np.float64]) -> Estimate:
        known = values[~np.isnan(values)]  # without a row that counts, or 0 of 0, a draw says nothing
        if not len(known):
            return Estimate(float(value), float("nan"), float("nan"))
        low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
        return Estimate(float(value), float(low), float(high))

    def comparison(other: str) -> Comparison | None:
        if other not in observed:
            return None
        difference = observed["student"] - observed[other]
        as_large = np.abs(swapped[other]) >= abs(difference) * (1 - 1e-9)
        p_value = float((1 + as_large.sum()) / (1 + len(as_large)))
        return Comparison(estimate(difference, resampled["student"] - resampled[other]), p_value)

    retention = None
    if "teacher" in observed:
        above, below = ("student", "teacher") if higher else ("teacher", "student")
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.float64(observed[above]) / np.float64(observed[below])
            retention = estimate(share, resampled[above] / resampled[below])
    estimates = {
        model: estimate(observed[model], resampled[model])
        for model in ("teacher", "baseline", "student")
        if model in observed
    }
    return MetricResult(higher, estimates, retention, comparison("baseline"), comparison("teacher"))


def _swapped(
    measure: Callable[[EvalPrediction], Metrics], one: Any, two: Any, generator: np.random.Generator
) -> tuple[Metrics, Metrics]:
    """The metrics of two models whose answers to about half of the rows are swapped."""
    swap = generator.integers(2, size=_num_rows(one)).astype(bool)

    def mixed(first: Any, second: Any) -> Any:
        return _map(lambda a, b: np.where(swap.reshape(-1, *[1] * (a.ndim - 1)), b, a), first, second)

    return measure(EvalPrediction(mixed(one[0], two[0]), one[1])), measure(
        EvalPrediction(mixed(two[0], one[0]), one[1])
    )


def _map(function: Callable[..., Any], first: Any, *others: Any) -> Any:
    """The function of every array in nested tuples, lists and mappings."""
    if isinstance(first, Mapping):
        return {name: _map(function, value, *(each[name] for each in others)) for name, value in first.items()}
    if isinstance(first, Sequence):
        return tuple(_map(function, *parts) for parts in zip(first, *others, strict=True))
    return None if first is None else function(first, *others)


def _num_rows(answer: Any) -> int:
    while not isinstance(answer, np.ndarray):
        answer = next(iter(answer.values())) if isinstance(answer, Mapping) else answer[0]
    return len(answer)

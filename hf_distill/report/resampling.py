"""Intervals and tests by resampling rows, for any metric that is a function of sums over rows."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from hf_distill.report.results import Comparison, Estimate


Array = NDArray[np.float64]
Sums = Mapping[str, Array]
"""Name → what is summed. Of single rows `(rows, k)`; of resamples, which are sums over rows, `(resamples, k)`."""
Statistic = Callable[[Sums], Array]
"""From sums `(n, k)` to values `(n,)`. Rows that are drawn together keep their tokens together."""

ROWS_AT_ONCE = 4_000_000
"""Entries of the matrix of counts that are held at a time."""


def total(sums: Sums) -> Sums:
    """The sums over all rows, `(1, k)`."""
    return {name: values.sum(axis=0, keepdims=True) for name, values in sums.items()}


class Bootstrap:
    """Sums over rows that are drawn with replacement, the same rows for every model, so that differences are paired.

    Args:
        models: model → sums of its rows; all have one number of rows.
        num_resamples: how many times rows are drawn.
        confidence: of the intervals, between 0 and 1.
        seed: of the draws.

    References:
        Efron, Tibshirani: An Introduction to the Bootstrap, 1993, chapter 13 (the percentile interval).

    Example:

        >>> hits = {"correct": np.array([[1.0], [0.0], [1.0], [1.0]]), "count": np.ones((4, 1))}
        >>> bootstrap = Bootstrap({"student": hits}, num_resamples=200)
        >>> accuracy = lambda sums: sums["correct"][:, 0] / sums["count"][:, 0]
        >>> bootstrap.estimate(accuracy, "student")
        Estimate(value=0.75, low=0.25, high=1.0)
    """

    def __init__(
        self, models: Mapping[str, Sums], num_resamples: int = 1000, confidence: float = 0.95, seed: int = 0
    ) -> None:
        self.confidence = confidence
        self._observed = {model: total(sums) for model, sums in models.items()}
        self._drawn = {
            model: _weighted(sums, _bootstrap_counts(num_resamples, _num_rows(sums), seed))
            for model, sums in models.items()
        }

    def values(self, statistic: Statistic, model: str) -> tuple[Array, Array]:
        """The statistic of the rows as they are, `(1,)`, and of each resample."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return statistic(self._observed[model]), statistic(self._drawn[model])

    def estimate(self, statistic: Statistic, model: str) -> Estimate:
        """The statistic with its interval."""
        return self.interval(*self.values(statistic, model))

    def interval(self, observed: Array, drawn: Array) -> Estimate:
        """The percentile interval of any function of statistics of the same resamples."""
        tail = (1 - self.confidence) / 2
        finite = drawn[np.isfinite(drawn)]
        if not len(finite):
            return Estimate(float(observed[0]))
        low, high = np.quantile(finite, [tail, 1 - tail])
        return Estimate(float(observed[0]), float(low), float(high))

    def difference(self, statistic: Statistic, first: str, second: str) -> Estimate:
        """The first model's value less the second's."""
        (one, ones), (other, others) = self.values(statistic, first), self.values(statistic, second)
        return self.interval(one - other, ones - others)


def comparison(
    bootstrap: Bootstrap, statistic: Statistic, models: Mapping[str, Sums], first: str, second: str, seed: int = 0
) -> Comparison:
    """The difference of two models, and whether chance alone would make one as large.

    Where the two models are the same but for chance, their answers to a row may be swapped. So they are, each row's
    with probability ½, and the p-value is (1 + how often the difference is as large) / (1 + resamples). Of an
    accuracy this is McNemar's test.

    References:
        Noreen: Computer-Intensive Methods for Testing Hypotheses, 1989; Yeh: More accurate tests for the statistical
        significance of result differences, 2000, https://aclanthology.org/C00-2137.
    """
    num_resamples = len(bootstrap.values(statistic, first)[1])
    sums = models[first], models[second]
    swap = {name: values - sums[0][name] for name, values in sums[1].items()}
    moved = _weighted(swap, _coins(num_resamples, _num_rows(sums[0]), seed))
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = (statistic(total(each)) for each in sums)
        ones = statistic({name: total(sums[0])[name] + values for name, values in moved.items()})
        others = statistic({name: total(sums[1])[name] - values for name, values in moved.items()})
    difference = abs(one - other)[0]
    p_value = None
    if np.isfinite(difference):
        as_large = np.abs(ones - others) >= difference * (1 - 1e-9)
        p_value = float((1 + as_large.sum()) / (1 + num_resamples))
    return Comparison(bootstrap.difference(statistic, first, second), p_value)


def _num_rows(sums: Sums) -> int:
    return len(next(iter(sums.values())))


def _weighted(sums: Sums, weights: Iterator[Array]) -> Sums:
    """Each block of weights `(n, rows)` times the rows, one below the other."""
    blocks = [{name: block @ values for name, values in sums.items()} for block in weights]
    return {name: np.concatenate([block[name] for block in blocks]) for name in sums}


def _blocks(num_resamples: int, num_rows: int) -> Iterator[int]:
    size = max(1, ROWS_AT_ONCE // max(num_rows, 1))
    for start in range(0, num_resamples, size):
        yield min(size, num_resamples - start)


def _bootstrap_counts(num_resamples: int, num_rows: int, seed: int) -> Iterator[Array]:
    """How often each row is drawn."""
    generator = np.random.default_rng(seed)
    for size in _blocks(num_resamples, num_rows):
        drawn = generator.integers(num_rows, size=(size, num_rows))
        yield np.stack([np.bincount(row, minlength=num_rows) for row in drawn]).astype(np.float64)


def _coins(num_resamples: int, num_rows: int, seed: int) -> Iterator[Array]:
    generator = np.random.default_rng(seed)
    for size in _blocks(num_resamples, num_rows):
        yield generator.integers(2, size=(size, num_rows)).astype(np.float64)

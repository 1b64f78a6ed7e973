"""Intervals and tests against their definitions in loops."""

import itertools

import numpy as np
import pytest

from hf_distill.report.resampling import Bootstrap, comparison, total


def share(sums):
    return sums["correct"][:, 0] / sums["count"][:, 0]


def hits(*values):
    return {"correct": np.array(values, dtype=float)[:, None], "count": np.ones((len(values), 1))}


def test_the_interval_is_that_of_means_of_drawn_rows():
    generator = np.random.default_rng(1)
    values = (generator.random(200) < 0.7).astype(float)
    estimate = Bootstrap({"student": hits(*values)}, num_resamples=4000).estimate(share, "student")
    means = [np.mean(values[generator.integers(200, size=200)]) for _ in range(4000)]
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.low, estimate.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.008)


def test_rows_that_are_drawn_keep_their_tokens_together():
    rows = {"correct": np.array([[10.0], [0.0]]), "count": np.array([[10.0], [10.0]])}
    drawn = Bootstrap({"student": rows}, num_resamples=50).values(share, "student")[1]
    assert set(drawn) == {0.0, 0.5, 1.0}


def test_differences_are_of_the_same_rows():
    bootstrap = Bootstrap({"student": hits(1, 1, 0, 1), "baseline": hits(1, 1, 0, 1)}, num_resamples=100)
    estimate = bootstrap.difference(share, "student", "baseline")
    assert (estimate.value, estimate.low, estimate.high) == (0, 0, 0)


def test_the_test_is_that_of_all_swaps():
    models = {"student": hits(1, 1, 1, 1, 0, 1), "baseline": hits(0, 0, 1, 0, 1, 0)}
    first, second = (sums["correct"][:, 0] for sums in models.values())
    observed = abs(first.mean() - second.mean())
    swaps = [np.array(swap, dtype=bool) for swap in itertools.product((False, True), repeat=6)]
    gaps = [abs(np.where(swap, second, first).mean() - np.where(swap, first, second).mean()) for swap in swaps]
    exact = np.mean([gap >= observed - 1e-12 for gap in gaps])
    bootstrap = Bootstrap(models, num_resamples=20000)
    result = comparison(bootstrap, share, models, "student", "baseline")
    assert result.p_value == pytest.approx(exact, abs=0.015)
    assert result.difference.value == pytest.approx(first.mean() - second.mean())


def test_equal_models_differ_by_chance():
    models = {"student": hits(1, 0, 1), "baseline": hits(1, 0, 1)}
    assert comparison(Bootstrap(models, num_resamples=50), share, models, "student", "baseline").p_value == 1


def test_nothing_counted_has_no_interval():
    empty = {"correct": np.zeros((3, 1)), "count": np.zeros((3, 1))}
    estimate = Bootstrap({"student": empty}, num_resamples=10).estimate(share, "student")
    assert np.isnan(estimate.value) and estimate.low is None


def test_the_seed_decides():
    sums = hits(*np.random.default_rng(0).integers(2, size=30))
    drawn = [Bootstrap({"m": sums}, num_resamples=20, seed=seed).values(share, "m")[1].tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert total(sums)["count"].tolist() == [[30.0]]

"""The metric `calibration` by `evaluate`, loaded without a network."""

import pytest

from hf_distill.report import metrics


def test_two_bins():
    predictions = [[0.9, 0.1], [0.1, 0.9], [0.95, 0.05], [0.6, 0.4]]
    result = metrics.load("calibration").compute(predictions=predictions, references=[0, 0, 0, 1])
    # 0.9, 0.9 are in bin 13, of which one is right; 0.95 in bin 14, right; 0.6 in bin 9, wrong
    expected = (2 * abs(1 / 2 - 0.9) + abs(1 - 0.95) + abs(0 - 0.6)) / 4
    assert result == {"calibration_error": pytest.approx(expected)}

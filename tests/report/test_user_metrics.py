"""The user's own metrics, with intervals."""

import numpy as np
import pytest

from hf_distill import distillation_report
from hf_distill.report.user_metrics import higher_is_better
from tests.gradients import arguments
from tests.report.tiny_reports import baseline_for, reported_trainer


def right(prediction):
    hits = prediction.predictions.argmax(-1) == prediction.label_ids
    return {"right": float(hits.mean()), "error": float(1 - hits.mean()), "words": ["no number"]}


def test_they_come_first_and_agree_with_ours(tmp_path):
    trainer = reported_trainer(tmp_path, compute_metrics=right, eval_strategy="epoch")
    report = distillation_report(trainer, baseline_for(trainer), num_resamples=200, batch_sizes=())
    assert list(report.metrics) == ["right", "error", "accuracy", "macro_f1"]
    own, ours, error = (report.metrics[name] for name in ("right", "accuracy", "error"))
    assert own.models.keys() == ours.models.keys()
    for model, estimate in own.models.items():
        assert estimate.value == pytest.approx(ours.models[model].value)
        assert estimate.low == pytest.approx(ours.models[model].low, abs=0.13)  # one row of eight
        assert error.models[model].value == pytest.approx(1 - estimate.value)
    assert own.over_baseline.p_value == 1.0 and own.over_baseline.difference.value == 0
    assert own.from_teacher.p_value == pytest.approx(ours.from_teacher.p_value, abs=0.15)
    assert not error.higher_is_better and own.higher_is_better
    assert np.isfinite(own.retention.value)


def test_what_no_draw_tells_is_no_number(tmp_path):
    """A share of 0 of 0, and draws without a row that counts, which warn of nothing."""

    def measure(prediction):
        first = np.flatnonzero(prediction.label_ids == prediction.label_ids.max())
        return {"zero": 0.0, "some": 1.0 if len(first) > 1 else np.nan}

    report = distillation_report(reported_trainer(tmp_path, compute_metrics=measure), num_resamples=50, batch_sizes=())
    zero, some = report.metrics["zero"], report.metrics["some"]
    assert zero.models["student"].low == 0 and np.isnan([zero.retention.low, zero.retention.high]).all()
    assert some.models["student"].low == some.models["student"].high == 1


def test_metrics_batch_by_batch_are_left_out(tmp_path):
    def batched(prediction, compute_result):
        return right(prediction)

    trainer = reported_trainer(tmp_path, compute_metrics=batched, batch_eval_metrics=True)
    assert "right" not in distillation_report(trainer, num_resamples=5, batch_sizes=()).metrics


def test_the_direction(tmp_path):
    told = arguments(tmp_path, metric_for_best_model="eval_wer", greater_is_better=True)
    assert higher_is_better("wer", told) and not higher_is_better("wer", arguments(tmp_path))
    assert higher_is_better("bleu", told) and not higher_is_better("mean_squared_error", told)

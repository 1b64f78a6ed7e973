"""Metrics from sums against scikit-learn, SciPy and loops."""

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, mean_squared_error

from hf_distill.heads import RegressionHead, SingleLabelHead
from hf_distill.heads.classification import MultiLabelHead
from hf_distill.report import statistics
from hf_distill.report.resampling import total
from hf_distill.report.row_sums import row_sums
from hf_distill.types import Signals
from tests.tiny_models import ALL_HEADS, model_for


def summed(head, logits, labels):
    batch = {"input_ids": torch.ones(len(labels), 2, dtype=torch.long), "labels": labels}
    sums = row_sums(head, Signals(logits, is_distribution=head.is_distribution), None, head.positions(batch), batch)
    return total({name: value.numpy() for name, value in sums.items()})


def test_classes():
    logits, labels = torch.randn(60, 4), torch.randint(0, 4, (60,))
    sums, choices = summed(SingleLabelHead(), logits, labels), logits.argmax(-1)
    assert statistics.accuracy(sums) == pytest.approx(accuracy_score(labels, choices))
    assert statistics.macro_f1(sums) == pytest.approx(f1_score(labels, choices, average="macro"))
    assert statistics.mean_iou(sums) == pytest.approx(jaccard_score(labels, choices, average="macro"))
    assert statistics.class_f1(sums)[0] == pytest.approx(f1_score(labels, choices, average=None))
    nll = torch.nn.functional.cross_entropy(logits.double(), labels)
    assert statistics.perplexity(sums) == pytest.approx(nll.exp().item(), rel=1e-6)


def test_many_labels():
    scores, labels = torch.randn(40, 3), torch.randint(0, 2, (40, 3)).float()
    sums = summed(MultiLabelHead(3), torch.stack((scores, torch.zeros_like(scores)), -1), labels)
    assert statistics.micro_f1(sums) == pytest.approx(f1_score(labels, scores > 0, average="micro"))
    assert statistics.macro_f1(sums) == pytest.approx(f1_score(labels, scores > 0, average="macro"))


def test_numbers():
    outputs, labels = torch.randn(30, 1).double(), torch.randn(30).double()
    sums = summed(RegressionHead(), outputs, labels)
    assert statistics.pearson(sums) == pytest.approx(pearsonr(outputs[:, 0], labels).statistic)
    assert statistics.mean_squared_error(sums) == pytest.approx(mean_squared_error(labels, outputs[:, 0]))


def test_calibration():
    logits, labels = 2 * torch.randn(200, 3).double(), torch.randint(0, 3, (200,))
    confidence, choice = logits.softmax(-1).max(-1)
    expected = 0.0
    for index in range(15):
        inside = [i for i in range(200) if min(int(confidence[i] * 15), 14) == index]
        if inside:
            right = np.mean([float(choice[i] == labels[i]) for i in inside])
            expected += len(inside) / 200 * abs(right - np.mean([confidence[i].item() for i in inside]))
    assert statistics.calibration_error(summed(SingleLabelHead(), logits, labels)) == pytest.approx(expected)


@pytest.mark.parametrize("task", [task for task in ALL_HEADS if task != "embeddings"])
def test_every_head_with_labels_has_a_metric(task):
    from hf_distill.heads import head_of

    known = statistics._known_metrics(head_of(model_for(task, 1)))
    assert known and all(metric.reads for metric in known.values())
    assert not statistics.metrics_of(head_of(model_for(task, 1)), {"rows": np.ones((2, 1))})

"""The metric `agreement` by `evaluate`, loaded without a network."""

import evaluate
import pytest

from hf_distill.errors import ConfigurationError
from hf_distill.report import metrics


def test_agreement():
    assert metrics.load("agreement").compute(predictions=[0, 1, 2, 1], references=[0, 2, 2, 1]) == {"agreement": 0.75}


def test_it_joins_others():
    both = evaluate.combine([metrics.load("agreement"), str(metrics.FOLDER / "agreement")])
    both.add_batch(predictions=[0, 1], references=[0, 0])
    both.add_batch(predictions=[1, 1], references=[1, 1])
    assert set(both.compute().values()) == {0.75}


def test_each_folder_is_a_space():
    for name in ("agreement", "calibration", "retention"):
        card = (metrics.FOLDER / name / "README.md").read_text()
        assert card.startswith("---\ntitle: ") and "- evaluate\n" in card
        assert (metrics.FOLDER / name / "requirements.txt").read_text() == "hf_distill\n"


def test_another_name():
    with pytest.raises(ConfigurationError, match=r"no metric 'f1'. .* agreement, calibration, retention"):
        metrics.load("f1")

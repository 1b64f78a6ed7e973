import pytest
from datasets import Dataset

from hf_distill.processing import Reading


@pytest.mark.parametrize(
    ("problem", "value", "expected"),
    [
        ("single_label_classification", "b", 0),
        ("single_label_classification", None, -100),
        ("single_label_classification", -1, -100),
        ("multi_label_classification", ["a"], [0.0, 1.0, 0.0]),
        ("multi_label_classification", [], [0.0, 0.0, 0.0]),
        ("regression", 3, 3.0),
    ],
)
def test_the_label_of_a_row(problem, value, expected):
    reading = Reading(None, {"label": "y"}, problem, {"b": 0, "a": 1}, num_classes=3)
    assert reading.label(value) == expected


def test_an_unknown_label_is_no_silent_one():
    with pytest.raises(KeyError):
        Reading(None, {"label": "y"}, "single_label_classification", {"b": 0}, 1).label("c")


def test_columns():
    reading = Reading(None, {"text": "a", "text_pair": "b", "label": "y"})
    assert reading.text_columns == ["a", "b"]
    assert reading.replaced_columns(Dataset.from_dict({"a": [1], "y": [1]})) == ["y"]
    assert reading.replaced_columns(Dataset.from_dict({"a": [1]})) == []

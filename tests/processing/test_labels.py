import logging

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import BertConfig

from hf_distill.errors import ClassMismatchError, ConfigurationError
from hf_distill.processing import class_ids, labels_of


def column(values, feature=None):
    return Dataset.from_dict({"y": values}, features=feature and Features({"y": feature}))


@pytest.mark.parametrize(
    ("rows", "in_lists", "problem", "values", "names"),
    [
        (
            column([1, 0], ClassLabel(names=["no", "yes"])),
            "classes of rows",
            "single_label_classification",
            (0, 1),
            ("no", "yes"),
        ),
        (
            column(["b", "a", "b", None]),
            "classes of rows",
            "single_label_classification",
            ("a", "b"),
            ("a", "b"),
        ),
        (column([0, 2, -1]), "classes of rows", "single_label_classification", (0, 1, 2), None),
        (column([True, False]), "classes of rows", "single_label_classification", (False, True), ("False", "True")),
        (column([0.5, 2.0]), "classes of rows", "regression", (), None),
        (column([["a"], ["b", "a"]]), "classes of rows", "multi_label_classification", ("a", "b"), ("a", "b")),
        (column([["a"], ["b", "a"]]), "classes of tokens", "single_label_classification", ("a", "b"), ("a", "b")),
        (
            column([[0], [1]], List(ClassLabel(names=["O", "X"]))),
            "classes of tokens",
            "single_label_classification",
            (0, 1),
            ("O", "X"),
        ),
    ],
)
def test_reads_labels(rows, in_lists, problem, values, names):
    labels = labels_of("y", in_lists, rows)
    assert (labels.problem, labels.values, labels.names) == (problem, values, names)


def test_refuses_what_is_no_label():
    rows = Dataset.from_dict({"y": [{"a": 1}]})
    with pytest.raises(ConfigurationError, match=r"label_column='y' holds .*, which is no class and no number"):
        labels_of("y", "classes of rows", rows)
    with pytest.raises(ConfigurationError, match="label_column='y' holds -3, and classes are numbered from 0 on"):
        labels_of("y", "classes of rows", column([1, -3, -1]))


@pytest.mark.parametrize(
    "empty", [column([-1, -1], Value("int64")), column([None] * 2), column([None] * 2, Value("string"))]
)
def test_says_that_all_labels_are_empty(empty):
    with pytest.raises(ConfigurationError, match=r"label_column='y' is empty in all 2 rows.*\(alpha=0\)"):
        labels_of("y", "classes of rows", empty)


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf")])
def test_names_the_row_of_a_number_that_is_not_there(missing):
    rows = column([0.5, missing, 1.5, missing], Value("float64")).select([2, 0, 1, 3])
    with pytest.raises(ConfigurationError, match=f"holds {missing} in row 1, and 2 of 4 rows have no number there"):
        labels_of("y", "classes of rows", rows)
    with pytest.raises(ConfigurationError, match=f"holds {missing} in row 1"):
        labels_of("y", "classes of rows", column([0.5]), rows)


def test_collects_classes_from_all_rows():
    labels = labels_of("y", "classes of rows", column(["b", "a"]), column(["c", "a"]))
    assert labels.values == ("a", "b", "c")
    assert labels_of("y", "classes of rows", column([0, 1]), column([3])).values == (0, 1, 2, 3)


def test_says_that_classes_may_have_become_floats(caplog):
    logging.getLogger("transformers").propagate = True
    assert labels_of("y", "classes of rows", column([0.5, 1.0])).problem == "regression" and caplog.records == []
    with pytest.raises(ConfigurationError, match="holds None in row 1"):
        labels_of("y", "classes of rows", column([1.0, None, 0.0]))
    assert "label_column='y' holds the floats 0.0, 1.0, which are learnt as numbers" in caplog.text


def model(*names):
    return BertConfig(id2label=dict(enumerate(names)), label2id={name: index for index, name in enumerate(names)})


def of(*names):
    return labels_of("y", "classes of rows", column([0], ClassLabel(names=list(names))))


def test_classes_are_found_by_name_in_another_order_and_case():
    assert class_ids(of("Negative", "positive "), model("positive", "neutral", "negative")) == {0: 2, 1: 0}


def test_refuses_a_class_that_the_model_lacks():
    with pytest.raises(ClassMismatchError, match="the classes angry, and the model knows negative, positive"):
        class_ids(of("negative", "angry"), model("negative", "positive"))
    with pytest.raises(ClassMismatchError, match=r"3 classes, and the model 2"):
        class_ids(labels_of("y", "classes of rows", column([2])), BertConfig(num_labels=2))


def test_without_names_the_order_is_taken_and_said_if_one_side_has_names(caplog):
    logging.getLogger("transformers").propagate = True
    assert class_ids(labels_of("y", "classes of rows", column([0, 1])), BertConfig(num_labels=2)) == {0: 0, 1: 1}
    assert caplog.records == []
    assert class_ids(of("no", "yes"), BertConfig(num_labels=2)) == {0: 0, 1: 1}
    assert "taken to be in the order of the model's (LABEL_0, LABEL_1)" in caplog.text


def test_a_configuration_for_the_labels():
    assert of("no", "yes").configuration() == {
        "id2label": {0: "no", 1: "yes"},
        "label2id": {"no": 0, "yes": 1},
        "problem_type": "single_label_classification",
    }
    assert labels_of("y", "classes of rows", column([0.5])).configuration() == {
        "num_labels": 1,
        "problem_type": "regression",
    }

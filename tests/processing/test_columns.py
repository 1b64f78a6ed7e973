import pytest
from datasets import Audio, Dataset, Features, Image, List, Value

from hf_distill.errors import ConfigurationError
from hf_distill.processing import TASKS, check_inputs, find_columns


def found(task, names, **given):
    return find_columns(names, TASKS[task].inputs, TASKS[task].labels, given)


@pytest.mark.parametrize(
    ("task", "names", "expected"),
    [
        ("text-classification", ["sentence", "label", "idx"], {"text": "sentence", "label": "label"}),
        (
            "text-classification",
            ["premise", "hypothesis", "label"],
            {"text": "premise", "text_pair": "hypothesis", "label": "label"},
        ),
        ("text-classification", ["text"], {"text": "text"}),
        ("token-classification", ["id", "tokens", "ner_tags"], {"text": "tokens", "label": "ner_tags"}),
        (
            "question-answering",
            ["context", "question", "answers"],
            {"text": "question", "text_pair": "context", "label": "answers"},
        ),
        ("image-classification", ["img", "label"], {"image": "img", "label": "label"}),
        ("text2text-generation", ["document", "summary"], {"text": "document", "label": "summary"}),
        ("fill-mask", ["text", "label"], {"text": "text"}),
    ],
)
def test_finds_the_usual_names(task, names, expected):
    assert found(task, names) == expected


def test_a_named_input_stands_for_all_of_them():
    names = ["sentence1", "sentence2", "extra", "label"]
    assert found("text-classification", names, text="extra") == {"text": "extra", "label": "label"}
    pair = {"text": "extra", "text_pair": "sentence2"}
    assert found("text-classification", names, **pair) == {**pair, "label": "label"}


def test_a_named_label_leaves_the_inputs_to_be_found():
    assert found("text-classification", ["text", "stars"], label="stars") == {"text": "text", "label": "stars"}


def test_refuses_a_column_that_is_not_there():
    with pytest.raises(ConfigurationError, match=r"text_column='txt' is no column of the data set, which has text"):
        found("text-classification", ["text"], text="txt")


def test_refuses_to_guess():
    with pytest.raises(ConfigurationError, match=r"holds the text: the data set has a, b\. Name it by `text_column`"):
        found("text-classification", ["a", "b"])
    with pytest.raises(ConfigurationError, match=r"holds the text_pair"):
        found("question-answering", ["question", "passage"], text="question")


def test_one_column_has_one_role():
    with pytest.raises(ConfigurationError, match="text_column and label_column are both 'label'"):
        found("text-classification", ["sentence", "label"], text="label")


def rows_with(feature):
    return Dataset.from_dict({"x": []}, features=Features({"x": feature}))


@pytest.mark.parametrize(
    ("role", "good", "bad", "kind"),
    [
        ("text", [Value("string"), Value("large_string"), List(Value("string"))], [Value("int64"), Image()], "texts"),
        ("text_pair", [Value("string")], [List(Value("float32"))], "texts"),
        ("image", [Image()], [Value("string"), List(Value("uint8"))], "pictures"),
        (
            "audio",
            [Audio(), List(Value("int16")), {"array": List(Value("float32")), "sampling_rate": Value("int32")}],
            [Value("string"), Value("int64"), {"path": Value("string")}],
            "recordings",
        ),
    ],
)
def test_inputs_are_of_their_kind(role, good, bad, kind):
    for feature in good:
        check_inputs(rows_with(feature), {role: "x", "label": "y"})
    for feature in bad:
        with pytest.raises(ConfigurationError, match=rf"{role}_column='x' holds .*, and {kind}.* are read there"):
            check_inputs(rows_with(feature), {role: "x"})


def test_names_the_row_without_a_text():
    rows = Dataset.from_dict({"x": ["a", "b", None, "", None]}).select([4, 3, 2, 0])
    with pytest.raises(ConfigurationError, match="text_column='x' is empty in row 4, and in 2 of 4 rows"):
        check_inputs(rows, {"text": "x"})
    check_inputs(rows.select([1, 3]), {"text": "x"})

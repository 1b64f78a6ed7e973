import pytest
from datasets import Dataset

from hf_distill.errors import ClassMismatchError, ConfigurationError
from hf_distill.jobs.data import job_data
from hf_distill.jobs.models import load_processor
from tests.tiny_jobs import put_teacher, rows_of


@pytest.fixture
def teacher(tmp_path):
    return put_teacher(tmp_path, "text-classification")


def test_rows_as_a_model_reads_them(teacher, tmp_path):
    data = job_data("text-classification", rows_of("text-classification"), rows_of("text-classification", 6))
    tokenizer = load_processor(tmp_path, "text-classification")
    reading = data.reading(teacher, tokenizer)
    assert reading.class_ids == {0: 0, 1: 1}
    assert reading.max_length == 64  # the model's positions, fewer than the task's 128
    arguments = data.trainer_arguments(reading)
    assert (len(arguments["train_dataset"]), len(arguments["eval_dataset"])) == (24, 6)
    assert arguments["processing_class"] is tokenizer
    assert arguments["compute_metrics"] is not None


def test_a_length_that_was_asked_for_stays(teacher):
    rows = rows_of("text-classification")
    data = job_data("text-classification", rows, rows, settings={"max_length": 99, "sampling_rate": None})
    assert data.reading(teacher, None).max_length == 99


def test_a_class_that_the_model_lacks_is_refused(teacher):
    rows = Dataset.from_dict({"text": ["a"], "label": ["ugly"]})
    with pytest.raises(ClassMismatchError, match="ugly"):
        job_data("text-classification", rows, rows).reading(teacher, None)


def test_numbers_are_nothing_for_a_model_of_classes(teacher):
    rows = Dataset.from_dict({"text": ["a"], "label": [0.5]})
    with pytest.raises(ClassMismatchError, match=r"'label' holds numbers .* the model has 2 classes \(bad, good\)"):
        job_data("text-classification", rows, rows).reading(teacher, None)


def test_a_text_that_is_missing_in_either_part_is_refused():
    rows, gap = Dataset.from_dict({"text": ["a"]}), Dataset.from_dict({"text": ["a", None]})
    for train, evaluation in ((rows, gap), (gap, rows), (None, gap)):
        with pytest.raises(ConfigurationError, match="text_column='text' is empty in row 1"):
            job_data("fill-mask", train, evaluation)


def test_the_least_samples_are_those_of_the_model(tmp_path):
    rows = rows_of("audio-classification")
    model = put_teacher(tmp_path, "audio-classification")
    assert job_data("audio-classification", rows, rows).reading(model, None).least_samples == 6


@pytest.mark.parametrize(
    ("task", "columns", "has_labels", "has_scores"),
    [
        ("text-classification", {"text": ["a"], "label": [0]}, True, True),
        ("text-classification", {"text": ["a"]}, False, False),
        ("fill-mask", {"text": ["a"]}, True, False),
        ("text2text-generation", {"text": ["a"], "summary": ["b"]}, True, False),
    ],
)
def test_whether_there_is_something_to_learn_without_a_teacher(task, columns, has_labels, has_scores, tmp_path):
    rows = Dataset.from_dict(columns)
    model = put_teacher(tmp_path, task)
    data = job_data(task, None, rows)
    assert data.has_labels == has_labels
    arguments = data.trainer_arguments(data.reading(model, load_processor(tmp_path, task)))
    assert arguments["train_dataset"] is None
    assert (arguments["compute_metrics"] is not None) == has_scores

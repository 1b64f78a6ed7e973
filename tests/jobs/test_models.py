import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification

from hf_distill.errors import ConfigurationError, UntrainedTeacherError
from hf_distill.jobs.models import (
    StudentSource,
    load_model,
    load_processor,
    load_teacher,
    load_trained,
    load_with_classes,
    make_student,
    reads_alike,
    task_of_model,
)
from hf_distill.processing import Labels
from tests.house.local_hub import put_model, put_tokenizer
from tests.tiny_jobs import put_teacher


TASK = "text-classification"


@pytest.fixture
def teacher(tmp_path):
    return put_teacher(tmp_path / "teacher", TASK)


def same_weights(model, other):
    return all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_a_model_that_is_not_there_is_named():
    for load in (
        task_of_model,
        lambda name: load_model(name, "fill-mask"),
        lambda name: load_processor(name, "fill-mask"),
    ):
        with pytest.raises(
            ConfigurationError, match=r"the model 'minlm' is no folder, seen from .*, and was not found"
        ):
            load("minlm")


def test_loads_model_and_processor(teacher, tmp_path):
    folder = tmp_path / "teacher"
    assert task_of_model(folder) == TASK
    assert same_weights(load_model(folder, TASK), teacher)
    assert load_processor(folder, TASK).get_vocab() == AutoTokenizer.from_pretrained(folder).get_vocab()


def test_a_student_of_the_teacher(teacher):
    student = make_student(StudentSource(sizes={"num_hidden_layers": 1, "hidden_size": None}), teacher, TASK, 0)
    assert student.config.num_hidden_layers == 1
    assert student.config.hidden_size == teacher.config.hidden_size


@pytest.mark.parametrize("from_scratch", [False, True])
def test_a_student_without_a_head_gets_the_teachers_classes(teacher, from_scratch, tmp_path):
    body = put_model(tmp_path / "body", AutoModel, vocab_size=12, num_hidden_layers=1)
    source = StudentSource(str(tmp_path / "body"), from_scratch)
    student, again = (make_student(source, teacher, TASK, 3) for _ in range(2))
    assert student.config.id2label == {0: "bad", 1: "good"}
    assert same_weights(student, again)
    assert (
        torch.equal(student.bert.embeddings.word_embeddings.weight, body.embeddings.word_embeddings.weight)
        != from_scratch
    )


def test_a_student_with_a_head_keeps_its_classes(teacher, tmp_path):
    names = {"id2label": {0: "good", 1: "bad"}, "label2id": {"good": 0, "bad": 1}}
    put_model(tmp_path / "own", AutoModelForSequenceClassification, vocab_size=12, **names)
    student = make_student(StudentSource(str(tmp_path / "own")), teacher, TASK, 0)
    assert student.config.id2label == {0: "good", 1: "bad"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (StudentSource(), "no student and no size are given"),
        (StudentSource("x", sizes={"hidden_size": 8}), "student='x' and hidden_size=8 are given"),
    ],
)
def test_refuses_no_student_and_two_students(source, message, teacher):
    with pytest.raises(ConfigurationError, match=message):
        make_student(source, teacher, TASK, 0)


def test_a_new_head_has_the_classes_of_the_data(teacher, tmp_path):
    put_model(tmp_path / "body", AutoModel, vocab_size=12)
    labels = Labels("single_label_classification", (0, 1, 2), ("x", "y", "z"))
    new, again = (load_with_classes(str(tmp_path / "body"), TASK, labels, 0) for _ in range(2))
    assert isinstance(new, BertForSequenceClassification)
    assert new.config.id2label == {0: "x", 1: "y", 2: "z"}
    assert same_weights(new, again)
    kept = load_with_classes(str(tmp_path / "teacher"), TASK, labels, 0)
    assert kept.config.id2label == {0: "bad", 1: "good"}


@pytest.mark.parametrize("load", [load_teacher, load_trained])
def test_a_teacher_without_a_trained_head_is_refused(load, tmp_path):
    put_model(tmp_path / "body", AutoModel, vocab_size=12)
    with pytest.raises(UntrainedTeacherError, match=r"no weights for 2 parameters of BertFor.* \(first: 'classifier"):
        load(str(tmp_path / "body"), TASK)


def test_tokenizers_read_alike_by_their_vocabularies(tmp_path):
    one, same, other = (
        put_tokenizer(tmp_path / name, [text]) for name, text in zip("abc", ("a b", "b a", "a"), strict=True)
    )
    assert reads_alike(one, same)
    assert not reads_alike(one, other)


def test_image_processors_read_alike_by_their_settings(tmp_path):
    put_teacher(tmp_path / "vit", "image-classification")
    processor, same = (load_processor(tmp_path / "vit", "image-classification") for _ in range(2))
    assert reads_alike(processor, same)
    same.size = {"height": 16, "width": 16}
    assert not reads_alike(processor, same)

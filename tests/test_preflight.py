"""What would go silently wrong is said before the first step."""

import copy

import pytest
import torch
from transformers import (
    BertForMaskedLM,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
)

from hf_distill import Objective, preflight, recipes
from hf_distill.errors import (
    ClassMismatchError,
    ConfigurationError,
    EmptyDatasetError,
    LengthMismatchError,
    MissingInputError,
    MissingTeacherError,
    UnsupportedModelError,
    VocabularyMismatchError,
)
from hf_distill.heads import CausalLMHead, QuestionAnsweringHead, SemanticSegmentationHead, SingleLabelHead, head_of
from hf_distill.heads.alignment import Alignment
from hf_distill.terms import HardLabelTerm
from tests.tiny_models import BLOCK_SIZES, HEADS, bert, listener, llama, model_for, word_tokenizer
from tests.tiny_trainers import trainer_for


def check(student, teacher):
    preflight.check_models(student, teacher, head_of(student), head_of(teacher))
    return preflight.alignment(student, teacher, head_of(student))


@pytest.mark.parametrize("head", HEADS)
def test_a_good_pair_passes(head):
    student, teacher = model_for(head, 1), model_for(head, 2)
    preflight.check_apart(student, teacher)
    check(student, teacher)


def test_one_object_for_both():
    model = bert(num_labels=3)
    with pytest.raises(MissingTeacherError, match=r"are the same BertForSequenceClassification object.*deepcopy"):
        preflight.check_apart(model, model)
    preflight.check_apart(model, copy.deepcopy(model))


def test_shared_parameters():
    student, teacher = bert(num_labels=3), bert(layers=2, num_labels=3)
    student.bert.embeddings = teacher.bert.embeddings
    with pytest.raises(
        MissingTeacherError, match=r"shares 5 parameters with the teacher \(first: 'bert\.embeddings\..*deepcopy"
    ):
        preflight.check_apart(student, teacher)
    student.bert.embeddings.requires_grad_(False)
    preflight.check_apart(student, teacher)


def test_a_student_without_a_loss_of_its_own(tmp_path):
    config = DeiTConfig(**BLOCK_SIZES, num_hidden_layers=1, image_size=8, patch_size=4, num_labels=3)
    student, teacher = DeiTForImageClassificationWithTeacher(config), model_for("images", 2)
    says = r"DeiTForImageClassificationWithTeacher takes no \['labels'\], so it has no loss of its own.*`alpha=0`"
    with pytest.raises(ConfigurationError, match=says):
        trainer_for(tmp_path, "images", student=student, teacher=teacher)
    trainer_for(tmp_path, "images", student=student, teacher=teacher, alpha=0)
    trainer_for(tmp_path, "images", student=student, teacher=teacher, compute_loss_func=torch.nn.functional.mse_loss)
    preflight.check_own_loss(bert(), SingleLabelHead())


@pytest.mark.parametrize(
    "task, head", [("transcripts", "CTC"), ("regression", "Regression"), ("pixels", "SemanticSegmentation")]
)
def test_labels_that_name_no_class_for_each_score_are_not_smoothed(tmp_path, task, head):
    with pytest.raises(ConfigurationError, match=f"those of a {head}Head name no class for each of its scores"):
        trainer_for(tmp_path, task, label_smoothing_factor=0.1)
    trainer_for(tmp_path, task, label_smoothing_factor=0.1, alpha=0)


@pytest.mark.parametrize(
    "task, options, says",
    [
        (
            "single_label",
            {"alpha": 0.0, "label_smoothing_factor": 0.1},
            "`label_smoothing_factor` changes the labels'",
        ),
        ("images", {"alpha": 0.0, "compute_loss_func": print}, "`compute_loss_func` changes the labels' loss, which"),
        ("answers", {"label_smoothing_factor": 0.1}, "learns from `start_positions` and `end_positions`."),
        ("single_label", {"label_smoothing_factor": 0.1}, None),
        ("answers", {"compute_loss_func": print}, None),
    ],
)
def test_a_replaced_loss_that_nothing_learns_from(tmp_path, monkeypatch, task, options, says):
    said = []
    monkeypatch.setattr(preflight.logger, "warning_once", said.append)
    trainer_for(tmp_path, task, **options)
    assert len(said) == (says is not None) and all(says in message for message in said)


def test_heads_of_different_kinds():
    with pytest.raises(
        UnsupportedModelError,
        match=r"BertForSequenceClassification has a SingleLabelHead and the teacher BertForTokenClassification a "
        r"TokenClassificationHead, .* Load the teacher with AutoModelForSequenceClassification",
    ):
        check(model_for("single_label", 1), model_for("tokens", 2))


def test_problems_of_different_kinds():
    with pytest.raises(
        UnsupportedModelError, match=r"a SingleLabelHead and the teacher .* a MultiLabelHead.*one `problem_type`"
    ):
        check(model_for("single_label", 1), model_for("multi_label", 2))


@pytest.mark.parametrize("student, teacher", [(3, 5), (1, 3), (2, 1)])
def test_different_numbers_of_classes(student, teacher):
    """Also where Transformers makes a regression of the one class."""
    with pytest.raises(
        ClassMismatchError, match=rf"student has {student} classes and the teacher {teacher}\. .* num_labels={teacher}"
    ):
        check(bert(num_labels=student), bert(layers=2, num_labels=teacher))


def test_other_classes():
    student = bert(id2label={0: "sad", 1: "happy", 2: "angry"})
    teacher = bert(layers=2, id2label={0: "sad", 1: "furious", 2: "happy"})
    with pytest.raises(ClassMismatchError, match=r"\['sad', 'happy', 'angry'\] and the teacher .* lacks \['angry'\]"):
        check(student, teacher)


def test_answers_have_no_classes_to_compare():
    student, teacher = model_for("answers", 1), model_for("answers", 2)
    student.config.id2label = {0: "from", 1: "to"}
    teacher.config.id2label = {0: "start", 1: "end"}
    assert type(check(student, teacher)) is Alignment


@pytest.mark.parametrize("build", [llama, lambda **config: bert(BertForMaskedLM, **config)], ids=["causal", "masked"])
def test_different_vocabulary_sizes(build):
    student, teacher = build(), build(layers=2)
    teacher.config.vocab_size = 48
    with pytest.raises(VocabularyMismatchError, match=r"student has vocab_size 40 and the teacher 48"):
        check(student, teacher)


def test_a_module_without_configuration_is_taken_as_it_is():
    student, teacher = torch.nn.Linear(2, 3), bert(id2label={0: "sad", 1: "happy"})
    preflight.check_models(student, teacher, SingleLabelHead(), None)
    assert type(preflight.alignment(student, teacher, SingleLabelHead())) is Alignment


def test_vocabularies_of_equal_size():
    with pytest.raises(
        VocabularyMismatchError,
        match=r"have 4 and 4 tokens, and 2 token ids .* id 1 is 'cat' for the student and 'dog' for the teacher",
    ):
        preflight.check_vocabularies(word_tokenizer("?", "cat", "dog", "."), word_tokenizer("?", "dog", "cat", "."))


def test_vocabularies_of_different_size():
    with pytest.raises(VocabularyMismatchError, match=r"have 3 and 2 tokens, and 1 .* id 2 is 'dog' .* and None for"):
        preflight.check_vocabularies(word_tokenizer("?", "cat", "dog"), word_tokenizer("?", "cat"))


def test_vocabularies_that_agree():
    preflight.check_vocabularies(word_tokenizer("?", "cat"), word_tokenizer("?", "cat"))


def test_a_teacher_that_knows_more_tokens():
    preflight.check_vocabularies(word_tokenizer("?", "cat"), word_tokenizer("?", "cat", "dog"))


def test_the_tokenizer_of_a_processor_is_the_students(tmp_path):
    (tmp_path / "vocab.json").write_text('{"[PAD]": 0, "a": 1, "[UNK]": 2}')
    tokenizer = Wav2Vec2CTCTokenizer(tmp_path / "vocab.json", unk_token="[UNK]", pad_token="[PAD]")
    processor = Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer)
    head = head_of(listener())
    assert preflight.tokenizers(processor, [], head) == (tokenizer, None)
    assert preflight.tokenizers(tokenizer, [], head) == (tokenizer, None)
    assert preflight.tokenizers(Wav2Vec2FeatureExtractor(), [], head) == (None, None)


def test_empty_data_sets():
    rows = [{"input_ids": [1]}]
    preflight.check_datasets(rows, None)
    with pytest.raises(EmptyDatasetError, match=r"`train_dataset` has 0 rows"):
        preflight.check_datasets([], rows)
    preflight.check_datasets((row for row in rows), None)


def test_a_batch_without_labels():
    batch = {"input_ids": torch.ones(1, 2), "start_positions": torch.zeros(1)}
    with pytest.raises(
        MissingInputError,
        match=r"\(labels, soft\), and the batch lacks \['end_positions'\]: it has only \['input_ids', 'start_pos"
        r"itions'\]\. .*`alpha=0`",
    ):
        preflight.check_batch(batch, QuestionAnsweringHead(), recipes.hinton())
    preflight.check_batch(batch, QuestionAnsweringHead(), recipes.hinton(alpha=0))
    preflight.check_batch({**batch, "labels": torch.zeros(1, 2)}, CausalLMHead(), recipes.hinton())


def test_pixels_without_labels_beside_those_of_images_of_another_size():
    batch = {"pixel_values": torch.zeros(1, 3, 8, 6), "teacher_pixel_values": torch.zeros(1, 3, 4, 6)}
    objective = recipes.hinton(alpha=0)
    with pytest.raises(
        LengthMismatchError,
        match=r"images have \(8, 6\) pixels and the teacher's \(4, 6\), .*one `size`, or keep `labels`",
    ):
        preflight.check_batch(batch, SemanticSegmentationHead(), objective)
    for harmless in ({"labels": torch.zeros(1, 8, 6)}, {"teacher_pixel_values": torch.ones(1, 3, 8, 6)}):
        preflight.check_batch({**batch, **harmless}, SemanticSegmentationHead(), objective)
    preflight.check_batch(batch, SingleLabelHead(), objective)


def test_labels_that_are_no_class_indices():
    """Transformers would quietly make a multi-label problem of it, whose soft targets are not a softmax."""
    batch = {"input_ids": torch.ones(2, 2), "labels": torch.zeros(2, 3)}
    objective = Objective({"labels": (1.0, HardLabelTerm())})
    with pytest.raises(
        ConfigurationError, match=r"`labels` are torch\.float32 of shape \(2, 3\), not class indices\. .*problem_type"
    ):
        preflight.check_batch(batch, SingleLabelHead(), objective)
    for head in ("multi_label", "regression"):
        preflight.check_batch(batch, head_of(model_for(head, 1)), objective)

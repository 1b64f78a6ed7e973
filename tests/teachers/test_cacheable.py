"""Whose answers can be kept, and of which rows."""

import copy

import pytest
import torch

from hf_distill import OnlineTeacher, cache_teacher
from hf_distill.errors import VocabularyMismatchError
from hf_distill.heads import head_of
from tests.house.local_hub import put_tokenizer
from tests.teachers.test_cached import cached, check_equal_training, rows_of, trained
from tests.test_comparable import LETTERS, NAMES, ORDER, letter_tokenizer, named, with_classes
from tests.tiny_models import PaddingCollator, bert, listener, model_for
from tests.tiny_trainers import trainer_for


def test_rows_of_another_tokenizer_are_refused(tmp_path):
    """As the teacher itself is, beside a student that reads by that tokenizer."""
    model = bert(layers=2, num_labels=3)
    model.save_pretrained(tmp_path / "model")
    theirs = put_tokenizer(str(tmp_path / "model"), ["a b c"])
    ours = put_tokenizer(str(tmp_path / "ours"), ["c b a d"])
    with pytest.raises(VocabularyMismatchError, match="id 8 is 'd' in the rows and None for the teacher"):
        cached(tmp_path / "cache", teacher=tmp_path / "model", processing_class=ours)
    with pytest.raises(VocabularyMismatchError, match="1 token ids stand for different strings"):
        trainer_for(tmp_path, teacher=tmp_path / "model", processing_class=ours)
    cached(tmp_path / "same", teacher=tmp_path / "model", processing_class=theirs)
    rows = [{**row, "teacher_input_ids": row["input_ids"][:2]} for row in rows_of("single_label")]
    cached(tmp_path / "apart", teacher=tmp_path / "model", rows=rows, processing_class=ours)


def test_a_teacher_that_was_one_of_several_answers_by_itself(tmp_path):
    """In its own classes, by whose names they are brought onto the student's later on."""
    first, second = (named(model_for("single_label", layers)) for layers in (2, 3))
    student = named(model_for("single_label", 1))
    teacher = OnlineTeacher(with_classes(first, ORDER), head_of(first))
    trainer_for(tmp_path, student=student, teacher=[teacher, second])
    batch = PaddingCollator()(rows_of("single_label"))
    kept = cached(tmp_path / "cache", teacher=teacher)
    kept.meet(student, head_of(student))
    with torch.no_grad():
        expected = first(**{name: value for name, value in batch.items() if name != "labels"}).logits[:, ORDER]
    assert list(kept.config.id2label.values()) == [NAMES[index] for index in ORDER]
    torch.testing.assert_close(kept.signals(batch).logits, expected)


def test_letters_under_the_numbers_that_the_teacher_has_for_them(tmp_path):
    """Whatever tokenizer made the labels, of which a teacher of transcripts reads nothing."""
    order = [0, 1, 3, 5, 2, 4]
    model = copy.deepcopy(listener(layers=2))
    model.lm_head.weight.data, model.lm_head.bias.data = model.lm_head.weight[order], model.lm_head.bias[order]
    letter_tokenizer([LETTERS[index] for index in order], "[UNK]").save_pretrained(tmp_path / "model")
    model.name_or_path = str(tmp_path / "model")
    options = {"processing_class": letter_tokenizer(LETTERS, "[UNK]"), "data_collator": PaddingCollator()}
    rows = [row | {"labels": [1 + label % 5 for label in row["labels"]]} for row in rows_of("transcripts")]
    cache_teacher(model, rows, tmp_path / "cache", dtype="float32", **options)
    online, offline = (
        trained(tmp_path, "transcripts", teacher, rows=rows, **options) for teacher in (model, tmp_path / "cache")
    )
    check_equal_training(online, offline, "transcripts")

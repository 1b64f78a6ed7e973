"""Teachers of which each reads the rows by a tokenizer of its own."""

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import ViTImageProcessor

from hf_distill import (
    DistillationTrainer,
    EnsembleTeacher,
    ProcessingTeacher,
    RoutedTeacher,
    cache_teacher,
    check_invariances,
)
from hf_distill.errors import CacheMismatchError, ConfigurationError, MissingInputError
from hf_distill.teachers.processing import DataCollatorWithReaders, RowReader
from tests.gradients import ALPHA, TEMPERATURE, GradientRecorder, arguments, relative_difference
from tests.test_teacher_inputs import bert_teacher, roberta
from tests.tiny_models import model_for
from tests.tiny_trainers import trainer_for
from tests.two_tokenizers import byte_pair_tokenizer, pair_rows, wordpiece_tokenizer


COLUMNS = ("question", "sentence")


def members():
    """One reads word pieces of both sentences, one bytes of the second alone."""
    return [
        ProcessingTeacher(bert_teacher().double(), wordpiece_tokenizer(), COLUMNS),
        ProcessingTeacher(roberta().double(), byte_pair_tokenizer(), "sentence"),
    ]


def trainer_of(output_dir, teacher, recorder=None, **changes):
    return DistillationTrainer(
        model=roberta().double(),
        teacher=teacher,
        args=arguments(output_dir, **{"num_train_epochs": 1, **changes}),
        train_dataset=Dataset.from_list(pair_rows()),
        processing_class=byte_pair_tokenizer(),
        callbacks=[recorder] if recorder else [],
    )


def answers():
    """The class scores of both teachers for every row, each asked for one row at a time, in tokens of its own."""
    bert, other = bert_teacher().double().eval(), roberta().double().eval()
    with torch.no_grad():
        for row in pair_rows():
            pieces = wordpiece_tokenizer()(row["question"], row["sentence"], return_tensors="pt")
            encoded = byte_pair_tokenizer()(row["sentence"], return_tensors="pt")
            yield bert(**pieces).logits[0], other(**encoded).logits[0]


def gradient_of_soft_targets(targets):
    """Of the student, one unpadded row at a time."""
    student, losses = roberta().double(), []
    for row, p in zip(pair_rows(), targets, strict=True):
        texts = row["question"], row["sentence"]
        (ours,) = student(**byte_pair_tokenizer()(*texts, return_tensors="pt")).logits
        p = p ** (1 / TEMPERATURE) / (p ** (1 / TEMPERATURE)).sum()
        soft = TEMPERATURE**2 * (p * (p.log() - torch.log_softmax(ours / TEMPERATURE, -1))).sum()
        losses.append(ALPHA * cross_entropy(ours, torch.tensor(row["labels"])) + (1 - ALPHA) * soft)
    torch.stack(losses).mean().backward()
    return {name: p.grad for name, p in student.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("batch_size, accumulation", [(8, 1), (2, 4)])
def test_the_mean_of_two_that_read_in_their_own_ways(tmp_path, batch_size, accumulation):
    recorder = GradientRecorder()
    splits = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": accumulation}
    trainer_of(tmp_path, EnsembleTeacher(members(), [1, 3]), recorder, learning_rate=0.0, **splits).train()
    expected = gradient_of_soft_targets([0.25 * one.softmax(0) + 0.75 * other.softmax(0) for one, other in answers()])
    assert relative_difference(recorder.steps[0], expected) < 1e-6
    assert not torch.allclose(*map(torch.stack, zip(*answers(), strict=True)))


def test_each_row_by_its_own_teacher(tmp_path):
    recorder = GradientRecorder()
    teacher = RoutedTeacher(dict(enumerate(members())), column="labels_of_route")
    trainer = trainer_of(tmp_path, teacher, recorder, learning_rate=0.0, per_device_train_batch_size=8)
    routes = [index // 3 % 2 for index in range(8)]
    trainer.train_dataset = trainer.train_dataset.add_column("labels_of_route", routes)
    trainer.train()
    targets = [said[route].softmax(0) for said, route in zip(answers(), routes, strict=True)]
    assert relative_difference(recorder.steps[0], gradient_of_soft_targets(targets)) < 1e-6


def test_the_batch_holds_the_inputs_of_each(tmp_path):
    first, second = members()
    trainer = trainer_of(tmp_path, [first, second])
    batch = next(iter(trainer.get_train_dataloader()))
    assert first.prefix != second.prefix
    assert f"{first.prefix}token_type_ids" in batch and f"{second.prefix}token_type_ids" not in batch
    assert batch[f"{first.prefix}input_ids"].shape != batch[f"{second.prefix}input_ids"].shape
    assert not {"question", "sentence"} & batch.keys()
    report = check_invariances(trainer)
    assert report["accumulation"].held and report["order of rows"].held and report["teacher unchanged"].held


def test_evaluation_reads_them_too(tmp_path):
    trainer = trainer_of(tmp_path, members())
    metrics = trainer.evaluate(Dataset.from_list(pair_rows()))
    assert metrics["eval_loss/soft"] > 0


@pytest.mark.parametrize("task", ["tokens", "masked", "causal", "answers"])
def test_outputs_on_tokens(tmp_path, task):
    teacher = ProcessingTeacher(model_for(task, 2), wordpiece_tokenizer(), "text")
    with pytest.raises(ConfigurationError, match=r"lie on tokens, and by its \w+ a `ProcessingTeacher` reads others"):
        trainer_for(tmp_path, task, teacher=[teacher, model_for(task, 3)])


def cached_answers(folder, teacher, tokenizer, columns):
    """A cache of rows in the teacher's own tokens."""
    rows = [{**tokenizer(*(row[name] for name in columns)), "labels": row["labels"]} for row in pair_rows()]
    return cache_teacher(teacher, rows, folder, processing_class=tokenizer, dtype="float32").cache.path


def single_gradients(output_dir, teacher, **options):
    recorder = GradientRecorder()
    DistillationTrainer(
        model=roberta(),
        teacher=teacher,
        args=arguments(output_dir, num_train_epochs=1, learning_rate=0.0, per_device_train_batch_size=8),
        train_dataset=Dataset.from_list(pair_rows()),
        processing_class=byte_pair_tokenizer(),
        callbacks=[recorder],
        **options,
    ).train()
    return recorder.steps[0]


def test_each_is_a_cache_of_rows_in_its_own_tokens(tmp_path):
    readers = (wordpiece_tokenizer(), COLUMNS), (byte_pair_tokenizer(), ("sentence",))
    models = bert_teacher(), roberta()
    paths = [
        cached_answers(tmp_path / str(number), model, *reader)
        for number, (model, reader) in enumerate(zip(models, readers, strict=True))
    ]
    expected, found = (
        single_gradients(tmp_path, [ProcessingTeacher(m, *reader) for m, reader in zip(members, readers, strict=True)])
        for members in (models, paths)
    )
    assert relative_difference(found, expected) < 1e-5


def test_a_single_cache_of_rows_in_other_tokens(tmp_path):
    path = cached_answers(tmp_path / "cache", bert_teacher(), wordpiece_tokenizer(), COLUMNS)
    options = {"teacher_processing_class": wordpiece_tokenizer(), "teacher_columns": COLUMNS}
    expected, found = (single_gradients(tmp_path, teacher, **options) for teacher in (bert_teacher(), path))
    assert relative_difference(found, expected) < 1e-5
    with pytest.raises(CacheMismatchError, match="which is none of the 8 in the cache"):
        single_gradients(tmp_path, path, **{**options, "teacher_columns": COLUMNS[:1]})


def test_no_columns():
    with pytest.raises(ConfigurationError, match="`columns` is empty"):
        ProcessingTeacher(bert_teacher(), wordpiece_tokenizer(), [])


def test_a_row_without_the_column(tmp_path):
    trainer = trainer_of(tmp_path, members())
    rows = Dataset.from_list(pair_rows()).remove_columns("question")
    with pytest.raises(MissingInputError, match=r"reads the columns \['question'\], and a row has only"):
        trainer.evaluate(rows)


def test_a_processing_class_that_makes_nothing_of_the_columns():
    reader = RowReader("teacher_0_", ViTImageProcessor(), frozenset({"pixel_values"}), ("question",), None)
    with pytest.raises(ConfigurationError, match=r"ViTImageProcessor\w* makes nothing of the columns \['question'\]"):
        reader(pair_rows())


def test_a_batch_of_another_collator():
    teacher = ProcessingTeacher(bert_teacher(), wordpiece_tokenizer(), COLUMNS)
    with pytest.raises(MissingInputError, match="in the Trainer's collator, and the batch was made by another"):
        teacher.signals({"input_ids": torch.zeros(1, 2)})


def test_the_students_collator_sees_no_raw_column():
    seen = []
    readers = [
        RowReader("teacher_0_", wordpiece_tokenizer(), frozenset({"input_ids"}), (name,), 4) for name in COLUMNS
    ]
    collator = DataCollatorWithReaders(lambda rows: seen.extend(rows) or {}, readers[:1])
    batch = DataCollatorWithReaders(collator, readers[1:])(pair_rows())
    assert all(row.keys() == {"input_ids", "attention_mask", "labels"} for row in seen)
    assert batch["teacher_0_input_ids"].shape == (8, 4)

"""Teachers that read the rows in their own way."""

import copy

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from torch.nn.functional import cross_entropy, log_softmax
from transformers import (
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    set_seed,
)

from hf_distill import DistillationTrainer, check_invariances, preflight_report
from hf_distill.errors import ConfigurationError, MissingInputError, VocabularyMismatchError
from hf_distill.teacher_inputs import DataCollatorWithTeacherInputs, TeacherInputs
from tests.gradients import ALPHA, TEMPERATURE, GradientRecorder, arguments, relative_difference
from tests.test_trial_batches import Pipe
from tests.tiny_models import BLOCK_SIZES, NO_DROPOUT, bert, model_for, rows_for, t5, vision
from tests.tiny_trainers import trainer_for
from tests.two_tokenizers import QUESTIONS, SENTENCES, byte_pair_tokenizer, pair_rows, wordpiece_tokenizer


def roberta():
    set_seed(1)
    sizes = {**BLOCK_SIZES, "vocab_size": len(byte_pair_tokenizer()), "num_hidden_layers": 1, "pad_token_id": 1}
    return RobertaForSequenceClassification(RobertaConfig(**sizes, **NO_DROPOUT, num_labels=3, initializer_range=0.3))


def bert_teacher(**config):
    teacher = bert(layers=2, num_labels=3, vocab_size=len(wordpiece_tokenizer()), **config)
    torch.nn.init.normal_(teacher.bert.embeddings.token_type_embeddings.weight)
    return teacher


def pair_trainer(output_dir, dataset=None, recorder=None, student=None, teacher=None, **changes):
    options = {name: changes.pop(name) for name in ("teacher_columns", "eval_dataset") if name in changes}
    return DistillationTrainer(
        model=student or roberta().double(),
        teacher=teacher or bert_teacher().double(),
        args=arguments(output_dir, **{"num_train_epochs": 1, **changes}),
        train_dataset=Dataset.from_list(pair_rows()) if dataset is None else dataset,
        processing_class=byte_pair_tokenizer(),
        teacher_processing_class=wordpiece_tokenizer(),
        callbacks=[recorder] if recorder else [],
        **options,
    )


def expected_gradients():
    """Both models on one unpadded row at a time, each with its own tokens."""
    student, teacher = roberta().double(), bert_teacher().double().eval()
    losses = []
    for row in pair_rows():
        texts = row["question"], row["sentence"]
        (ours,) = student(**byte_pair_tokenizer()(*texts, return_tensors="pt")).logits
        with torch.no_grad():
            (theirs,) = teacher(**wordpiece_tokenizer()(*texts, return_tensors="pt")).logits
        log_q, log_p = log_softmax(ours / TEMPERATURE, -1), log_softmax(theirs / TEMPERATURE, -1)
        soft = TEMPERATURE**2 * (log_p.exp() * (log_p - log_q)).sum()
        losses.append(ALPHA * cross_entropy(ours, torch.tensor(row["labels"])) + (1 - ALPHA) * soft)
    torch.stack(losses).mean().backward()
    return {name: p.grad for name, p in student.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("batch_size, accumulation", [(8, 1), (2, 4), (1, 8)])
def test_a_teacher_of_other_tokens_on_pairs_of_sentences(tmp_path, batch_size, accumulation):
    recorder = GradientRecorder()
    trainer = pair_trainer(
        tmp_path,
        recorder=recorder,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
    )
    trainer.train()
    (gradients,) = recorder.steps
    assert relative_difference(gradients, expected_gradients()) < 1e-6


def test_the_teacher_reads_its_own_token_types(tmp_path):
    batch = next(iter(pair_trainer(tmp_path).get_train_dataloader()))
    assert batch["teacher_token_type_ids"].unique().tolist() == [0, 1]
    assert batch["teacher_input_ids"].shape != batch["input_ids"].shape
    assert "question" not in batch and "token_type_ids" not in batch


def test_it_learns_evaluates_and_reports(tmp_path):
    rows = Dataset.from_list(pair_rows())
    trainer = pair_trainer(
        tmp_path,
        student=roberta(),
        teacher=bert_teacher(),
        eval_dataset=rows,
        report_agreement=True,
        learning_rate=5e-3,
        num_train_epochs=20,
        alpha=0,
    )
    before = trainer.evaluate()
    start, teacher = copy.deepcopy(trainer.model.state_dict()), copy.deepcopy(trainer.teacher.model.state_dict())
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss/soft"] < 0.5 * before["eval_loss/soft"]
    assert after["eval_agreement"] > before["eval_agreement"]
    assert any(not torch.equal(start[name], value) for name, value in trainer.model.state_dict().items())
    assert all(torch.equal(teacher[name], value) for name, value in trainer.teacher.model.state_dict().items())


def test_the_invariances_hold(tmp_path):
    report = check_invariances(pair_trainer(tmp_path))
    assert report.held, str(report)
    assert report["accumulation"].difference is not None and report["padding"].difference is not None


@pytest.mark.parametrize("as_stream", [False, True])
def test_plain_rows_and_streams(tmp_path, as_stream):
    rows = Dataset.from_list(pair_rows()).to_iterable_dataset() if as_stream else pair_rows()
    recorder = GradientRecorder()
    trainer = pair_trainer(tmp_path, rows, recorder, per_device_train_batch_size=8, max_steps=1)
    trainer.train()
    assert relative_difference(recorder.steps[0], expected_gradients()) < 1e-6


def test_columns_made_beforehand(tmp_path):
    def for_teacher(row):
        tokens = wordpiece_tokenizer()(row["question"], row["sentence"])
        return {f"teacher_{name}": value for name, value in tokens.items()}

    rows = Dataset.from_list(pair_rows()).map(for_teacher, remove_columns=["question", "sentence"])
    recorder = GradientRecorder()
    pair_trainer(tmp_path, rows, recorder, per_device_train_batch_size=8).train()
    assert relative_difference(recorder.steps[0], expected_gradients()) < 1e-6


def test_a_collator_that_keeps_all_columns_sees_the_text(tmp_path):
    seen = []
    trainer = pair_trainer(tmp_path, remove_unused_columns=False)
    trainer.data_collator = lambda rows: seen.append(set(rows[0])) or {"labels": torch.zeros(len(rows))}
    batch = next(iter(trainer.get_train_dataloader()))
    assert {"question", "sentence"} <= seen[0]
    assert {"teacher_input_ids", "labels"} <= batch.keys()


@pytest.mark.slow
def test_in_a_worker_of_the_data_loader(tmp_path):
    trainer = pair_trainer(tmp_path, dataloader_num_workers=1, per_device_train_batch_size=8)
    assert "teacher_input_ids" in next(iter(trainer.get_train_dataloader()))


def test_texts_are_cut_where_the_teacher_ends(tmp_path):
    trainer = pair_trainer(tmp_path, teacher=bert_teacher(max_position_embeddings=7).double())
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["teacher_input_ids"].shape[1] == 7
    assert preflight_report(trainer).longest_row == max(len(row["input_ids"]) for row in pair_rows())


def test_the_teachers_own_rows_are_measured(tmp_path):
    rows = [{"teacher_input_ids": [5] * 12, "teacher_attention_mask": [1] * 12, "input_ids": [5, 6], "labels": 1}] * 4
    trainer = pair_trainer(tmp_path, rows, teacher=bert_teacher(max_position_embeddings=7))
    with pytest.raises(ConfigurationError, match=r"a row has 12 tokens, and the teacher .* has 7 positions"):
        preflight_report(trainer)


def image_rows():
    generator = np.random.default_rng(0)
    images = [Image.fromarray(generator.integers(0, 255, (10, 12, 3), dtype=np.uint8)) for _ in range(4)]
    processor = ViTImageProcessor(size={"height": 8, "width": 8})
    return [
        {"image": image, "pixel_values": processor(image, return_tensors="pt")["pixel_values"][0], "labels": index % 3}
        for index, image in enumerate(images)
    ]


def test_images_of_another_size(tmp_path):
    processor = ViTImageProcessor(size={"height": 16, "width": 16})
    teacher = vision(ViTForImageClassification, ViTConfig, 2, num_labels=3, image_size=16)
    trainer = DistillationTrainer(
        model=model_for("images", 1),
        teacher=teacher,
        args=arguments(tmp_path, max_steps=1, per_device_train_batch_size=4),
        train_dataset=image_rows(),
        teacher_processing_class=processor,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert (batch["pixel_values"].shape, batch["teacher_pixel_values"].shape) == ((4, 3, 8, 8), (4, 3, 16, 16))
    logits = trainer.teacher.signals(batch).logits
    for row, answer in zip(image_rows(), logits, strict=True):
        assert torch.allclose(teacher(**processor(row["image"], return_tensors="pt")).logits[0], answer, atol=1e-5)
    trainer.train()


def test_recordings_of_another_sampling_rate(tmp_path):
    config = Wav2Vec2Config(
        **BLOCK_SIZES, num_hidden_layers=1, num_labels=3, conv_dim=(8, 8), conv_stride=(5, 2), conv_kernel=(10, 3),
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, num_feat_extract_layers=2,
        classifier_proj_size=8, mask_time_prob=0.0,
    )  # fmt: skip
    teacher = Wav2Vec2ForSequenceClassification(config)
    time = np.arange(800) / 8000
    sounds = [{"array": np.sin(2 * np.pi * pitch * time), "sampling_rate": 8000} for pitch in (220.0, 330.0)]
    rows = [{"sound": sound, "input_values": np.zeros((8, 8), np.float32), "labels": 1} for sound in sounds]
    trainer = DistillationTrainer(
        model=model_for("sounds", 1),
        teacher=teacher,
        args=arguments(tmp_path, max_steps=1, per_device_train_batch_size=2),
        train_dataset=rows,
        teacher_processing_class=Wav2Vec2FeatureExtractor(sampling_rate=16000, do_normalize=False),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["teacher_input_values"].shape == (2, 1600)
    finer = np.sin(2 * np.pi * 330.0 * np.arange(1600) / 16000)
    middle = slice(200, 1400)  # the filter knows nothing beyond the ends
    assert np.abs(batch["teacher_input_values"][1].numpy() - finer)[middle].max() < 1e-2
    trainer.train()


def test_a_kind_of_input_without_a_reader_of_its_own_is_the_students():
    """As for a dual encoder with another tokenizer that sees the same pixels."""
    inputs = TeacherInputs(wordpiece_tokenizer(), {"input_ids", "pixel_values"}, {"text": ("caption",)})
    collator = DataCollatorWithTeacherInputs(
        lambda rows: {"pixel_values": torch.stack([row["pixel_values"] for row in rows])}, inputs, {"caption"}
    )
    batch = collator([{"caption": text, "pixel_values": torch.ones(3, 2, 2)} for text in SENTENCES])
    assert set(batch) == {"pixel_values", "teacher_input_ids", "teacher_pixel_values"}


def test_a_stream_that_cannot_be_looked_at_beforehand(tmp_path):
    """Nothing would say which columns are meant, and the teacher would read the student's tokens."""
    with pytest.raises(ConfigurationError, match=r"is a stream of which no row can be looked at .* leave"):
        pair_trainer(tmp_path, Pipe(pair_rows()), max_steps=1)


def test_a_column_that_the_evaluation_lacks(tmp_path):
    trainer = pair_trainer(tmp_path)
    rows = Dataset.from_list(pair_rows()).remove_columns("question")
    with pytest.raises(MissingInputError, match="reads the column 'question', and a row has only"):
        trainer.evaluate(rows)


def test_heads_whose_outputs_are_tokens_are_refused(tmp_path):
    args, rows = arguments(tmp_path), rows_for("masked")
    with pytest.raises(ConfigurationError, match="outputs of a MaskedLMHead lie on tokens"):
        DistillationTrainer(
            model_for("masked", 1), args, teacher=model_for("masked", 2), train_dataset=rows,
            teacher_processing_class=wordpiece_tokenizer(),
        )  # fmt: skip


def test_a_processing_class_without_a_teacher(tmp_path):
    with pytest.raises(ConfigurationError, match="there is no teacher"):
        DistillationTrainer(roberta(), arguments(tmp_path, alpha=1), teacher_processing_class=wordpiece_tokenizer())


def test_columns_that_nothing_reads(tmp_path):
    with pytest.raises(ConfigurationError, match=r"`teacher_columns` names \['text'\], and nothing reads them"):
        DistillationTrainer(roberta(), arguments(tmp_path), teacher=bert_teacher(), teacher_columns="text")


def test_a_writer_still_needs_one_vocabulary(tmp_path):
    """What it reads may be tokenized in two ways; what it writes is compared token by token."""
    with pytest.raises(VocabularyMismatchError, match="token ids stand for different strings"):
        DistillationTrainer(
            t5(1), arguments(tmp_path), teacher=t5(2), processing_class=byte_pair_tokenizer(),
            teacher_processing_class=wordpiece_tokenizer(),
        )  # fmt: skip


def test_without_it_other_vocabularies_are_refused_by_name(tmp_path):
    teacher = bert_teacher()
    teacher.save_pretrained(tmp_path / "teacher")
    wordpiece_tokenizer().save_pretrained(tmp_path / "teacher")
    with pytest.raises(VocabularyMismatchError, match="`teacher_processing_class=`"):
        trainer_for(tmp_path, student=roberta(), teacher=tmp_path / "teacher", processing_class=byte_pair_tokenizer())


def test_the_texts_are_what_the_test_thinks():
    assert len({(row["question"], row["sentence"]) for row in pair_rows()}) == 8
    assert len(QUESTIONS) == len(SENTENCES) == 4

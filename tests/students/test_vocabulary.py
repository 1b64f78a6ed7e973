"""A smaller vocabulary: on the corpus the student says what the teacher says, for the tokens that are left."""

import pytest
import torch
from datasets import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    MarianConfig,
    MarianMTModel,
    T5Config,
    T5ForConditionalGeneration,
)

from hf_distill import DistillationTrainer
from hf_distill.errors import ConfigurationError, VocabularyMismatchError
from hf_distill.preflight import check_vocabularies
from hf_distill.students import student_from_teacher
from hf_distill.students.vocabulary import vocab_size_of, with_tokens
from tests import tiny_models
from tests.gradients import arguments
from tests.students import teachers
from tests.students.teachers import TEACHERS, inputs_of, of, outputs_of, tied_names
from tests.students.tokenizers_of_text import TEXTS, TOKENIZERS
from tests.tiny_models import NO_DROPOUT
from tests.tiny_trainers import loss_logs, trainer_for


READERS = [name for name in TEACHERS if name not in ("vit", "dinov2", "whisper")]


@pytest.mark.parametrize("name", READERS)
def test_kept_tokens_mean_and_weigh_what_they_did(name):
    """Tied embeddings, untied ones, a bias for each token, and a buffer for each (BART)."""
    teacher = TEACHERS[name](1)
    inputs = inputs_of(teacher)
    kept = sorted({0, 1, 2, 3, 17} | set(inputs["input_ids"].flatten().tolist()))
    student = with_tokens(teacher, kept)
    assert vocab_size_of(student.config) == len(kept) < 40
    renumbered = {
        key: torch.tensor([[kept.index(token) for token in row] for row in value.tolist()])
        if key.endswith("input_ids")
        else value
        for key, value in inputs.items()
    }
    said, expected = outputs_of(student, renumbered), outputs_of(teacher, inputs)
    assert said.keys() == expected.keys()
    for key, tensor in said.items():
        whole = expected[key]
        torch.testing.assert_close(tensor, whole[..., kept] if tensor.shape != whole.shape else whole)
    assert tied_names(student) == tied_names(teacher)


def gpt2(tokenizer, **config):
    sizes = {"n_embd": 16, "n_head": 2, "n_layer": 2, "initializer_range": 0.3}
    end = tokenizer.eos_token_id
    return of(
        GPT2LMHeadModel, GPT2Config, vocab_size=len(tokenizer), bos_token_id=end, eos_token_id=end, **sizes, **config
    )


def test_student_and_tokenizer_fit_and_load(tmp_path):
    tokenizer = TOKENIZERS["byte-level BPE"]()
    teacher = gpt2(tokenizer, pad_token_id=tokenizer.pad_token_id)
    student, smaller = student_from_teacher(
        teacher, num_hidden_layers=1, layers="first", vocabulary=TEXTS[:1], processing_class=tokenizer
    )
    assert student.config.vocab_size == len(smaller) < len(tokenizer)
    assert student.config.student_of["vocab_size"] == len(smaller)
    smaller.save_pretrained(tmp_path)
    student.save_pretrained(tmp_path)
    loaded = type(smaller).from_pretrained(tmp_path), type(student).from_pretrained(tmp_path)
    prompt = loaded[0]("First Citizen:", return_tensors="pt")
    text = loaded[0].decode(loaded[1].generate(**prompt, max_new_tokens=5, do_sample=False)[0])
    shorter = student_from_teacher(teacher, num_hidden_layers=1, layers="first")
    before = tokenizer("First Citizen:", return_tensors="pt")
    assert text.startswith("First Citizen:")
    kept = [tokenizer.get_vocab()[token] for token in smaller.convert_ids_to_tokens(range(len(smaller)))]
    with torch.no_grad():
        torch.testing.assert_close(loaded[1](**prompt).logits, shorter(**before).logits[..., kept])


def test_ids_in_configurations_are_renumbered():
    ids = {"pad_token_id": 7, "eos_token_id": [5, 9], "decoder_start_token_id": 30}
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "num_layers": 1, "vocab_size": 40}
    teacher = of(T5ForConditionalGeneration, T5Config, **sizes, **ids)
    teacher.generation_config.suppress_tokens = [6, 9, 20]
    teacher.generation_config.bad_words_ids = [[5, 9], [6]]
    teacher.generation_config.forced_decoder_ids = [[1, 30], [2, 8]]
    teacher.generation_config.lang_to_id = {"<|de|>": 9, "<|fr|>": 8}
    student = with_tokens(teacher, [5, 7, 9, 20, 30])
    for config in (student.config, student.generation_config):
        assert (config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (1, [0, 2], 4)
    assert student.shared.padding_idx is None or student.shared.padding_idx == 1
    assert student.generation_config.suppress_tokens == [2, 3]
    assert student.generation_config.bad_words_ids == [[0, 2]]
    assert student.generation_config.forced_decoder_ids == [[1, 4], [2, None]]
    assert student.generation_config.lang_to_id == {"<|de|>": 2}
    assert teacher.config.pad_token_id == teacher.generation_config.pad_token_id == 7


MARIAN = {
    **{
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    },
    **{
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
        "pad_token_id": 3,
        "eos_token_id": 0,
        "decoder_start_token_id": 3,
    },
    "share_encoder_decoder_embeddings": False,
}


def test_both_vocabularies_of_a_translator_are_cut():
    teacher = MarianMTModel(MarianConfig(vocab_size=20, decoder_vocab_size=20, **MARIAN)).eval()
    kept = [0, 2, 3, 7, 9]
    student = with_tokens(teacher, kept)
    inputs = {"input_ids": torch.tensor([[7, 9, 0]]), "decoder_input_ids": torch.tensor([[3, 2]])}
    renumbered = {"input_ids": torch.tensor([[3, 4, 0]]), "decoder_input_ids": torch.tensor([[2, 1]])}
    with torch.no_grad():
        torch.testing.assert_close(student(**renumbered).logits, teacher(**inputs).logits[..., kept])


def test_tokens_that_a_configuration_names_stay():
    tokenizer = TOKENIZERS["WordPiece"]()
    teacher = teachers.masked_bert(len(tokenizer) + 5, bos_token_id=len(tokenizer) - 1)
    student, smaller = student_from_teacher(teacher, vocabulary=["speak"], processing_class=tokenizer)
    assert student.config.bos_token_id == student.config.vocab_size - 1  # the rows of padding are gone
    last = tokenizer.convert_ids_to_tokens(len(tokenizer) - 1)
    assert smaller.convert_tokens_to_ids(last) == student.config.bos_token_id


def test_the_whole_teacher_reads_other_ids_and_its_cut_copy_the_same():
    tokenizer = TOKENIZERS["WordPiece"]()
    teacher = teachers.masked_bert(len(tokenizer), layers=2)
    cut_teacher, smaller = student_from_teacher(teacher, vocabulary=TEXTS[:2], processing_class=tokenizer)
    with pytest.raises(VocabularyMismatchError, match=r"token ids stand for different strings \(first: id \d+ is"):
        check_vocabularies(smaller, tokenizer)
    student = student_from_teacher(cut_teacher, num_hidden_layers=1)
    assert student.config.vocab_size == cut_teacher.config.vocab_size
    assert cut_teacher.name_or_path == smaller.name_or_path == ""  # so nobody takes the whole tokenizer for theirs


def test_a_student_of_the_cut_teacher_learns_from_it_token_by_token(tmp_path):
    tokenizer = TOKENIZERS["WordPiece"]()
    teacher = teachers.masked_bert(len(tokenizer), layers=2)
    cut_teacher, smaller = student_from_teacher(teacher, vocabulary=TEXTS, processing_class=tokenizer)
    student = student_from_teacher(cut_teacher, num_hidden_layers=1)
    rows = [{"input_ids": ids, "labels": ids} for ids in smaller(TEXTS[:4])["input_ids"]]
    before = student.get_input_embeddings().weight.clone()
    trainer = trainer_for(tmp_path, "masked", student, cut_teacher, rows, processing_class=smaller)
    trainer.train()
    assert not torch.equal(student.get_input_embeddings().weight, before)
    assert all(log["loss/soft"] > 0 for log in loss_logs(trainer))


def test_a_whole_teacher_may_read_with_its_own_tokenizer(tmp_path):
    """What the whole teacher says of the text, not of the student's ids: by the same layers, no loss is left."""
    tokenizer = TOKENIZERS["WordPiece"]()
    sizes = {**teachers.ENCODER, **NO_DROPOUT, "vocab_size": len(tokenizer), "num_hidden_layers": 1}
    teacher = of(BertForSequenceClassification, BertConfig, **sizes)
    student, smaller = student_from_teacher(teacher, vocabulary=TEXTS, processing_class=tokenizer)
    rows = Dataset.from_list([{"text": text, "labels": index % 2} for index, text in enumerate(TEXTS[:4])])
    trainer = DistillationTrainer(
        model=student,
        teacher=teacher,
        args=arguments(tmp_path, alpha=0.0, learning_rate=0.0, max_steps=2, per_device_train_batch_size=2),
        train_dataset=rows.map(lambda row: smaller(row["text"])),
        processing_class=smaller,
        teacher_processing_class=tokenizer,
    )
    trainer.train()
    assert all(log["loss/soft"] == pytest.approx(0.0, abs=1e-6) for log in loss_logs(trainer))


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (tiny_models.bert, {"vocabulary": ["a"]}, "vocabulary= is given without processing_class="),
        (tiny_models.bert, {"processing_class": "words"}, "processing_class= is given without vocabulary="),
        (
            tiny_models.bert,
            {"vocabulary": "First Citizen", "processing_class": "words"},
            r"vocabulary= is one text \('First Citizen' …\): pass a list",
        ),
        (
            lambda: TEACHERS["vit"](1),
            {"vocabulary": ["a"], "processing_class": "words"},
            "ViTForImageClassification has no vocab_size",
        ),
        (
            lambda: MarianMTModel(MarianConfig(vocab_size=20, decoder_vocab_size=30, **MARIAN)),
            {"vocabulary": ["a"], "processing_class": "words"},
            r"MarianMTModel has vocabularies of \[20, 30\] tokens, and one tokenizer cannot serve them",
        ),
        (
            lambda: teachers.masked_bert(20),
            {"vocabulary": [3, 25], "processing_class": "words"},
            r"vocabulary= needs the token ids \[25, \d+\], but the teacher has vocab_size 20",
        ),
    ],
)
def test_impossible_vocabularies_are_refused(make, arguments, message):
    if "processing_class" in arguments:
        arguments = {**arguments, "processing_class": TOKENIZERS[arguments["processing_class"]]()}
    with pytest.raises(ConfigurationError, match=message):
        student_from_teacher(make(), **arguments)

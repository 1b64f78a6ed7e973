"""Heads that write a sequence after reading another one."""

import pytest
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    MarianConfig,
    MarianMTModel,
    MBartConfig,
    MBartForConditionalGeneration,
)

from hf_distill.errors import MissingInputError
from hf_distill.heads import Seq2SeqHead, SpeechSeq2SeqHead, head_of
from hf_distill.types import Unit
from tests.gradients import recorded_run
from tests.tiny_models import WRITERS, PaddingCollator, encoder_decoder, model_for, rows_for
from tests.tiny_trainers import loss_logs, trainer_for


LABELS = torch.tensor([[5, 6, 7], [8, -100, -100]])
SOURCE = torch.tensor([[9, 9], [9, 9]])


def test_counts_where_labels_count_the_first_included():
    where = Seq2SeqHead().positions({"input_ids": SOURCE, "labels": LABELS})
    assert where.mask.tolist() == [[True, True, True], [True, False, False]]
    assert where.counts.items() >= {Unit.LABEL: 4, Unit.POSITION: 4}.items()


def test_without_labels_counts_what_the_decoder_reads():
    batch = {"input_ids": SOURCE, "decoder_input_ids": torch.tensor([[0, 5, 6], [0, 8, 0]])}
    assert Seq2SeqHead().mask(batch).all()
    batch["decoder_attention_mask"] = torch.tensor([[1, 1, 1], [1, 1, 0]])
    where = Seq2SeqHead().positions(batch)
    assert where.mask.tolist() == [[True, True, True], [True, True, False]]
    assert where.counts.items() >= {Unit.LABEL: 0, Unit.POSITION: 5}.items()


def test_a_decoder_without_anything_to_read():
    with pytest.raises(MissingInputError, match=r"neither `labels` nor `decoder_input_ids`: .*\['input_ids'\]"):
        Seq2SeqHead().mask({"input_ids": SOURCE})


def writers():
    models = {name: model_for(name, 1) for name in WRITERS}
    ids = {"pad_token_id": 1, "decoder_start_token_id": 1, "eos_token_id": 2}
    models["marian"] = MarianMTModel(encoder_decoder(MarianConfig, 1, decoder_vocab_size=40, **ids))
    models["mbart"] = MBartForConditionalGeneration(encoder_decoder(MBartConfig, 1, **ids))
    return models


@pytest.mark.parametrize("name, model", writers().items())
def test_derived_inputs_give_what_labels_give(name, model):
    """A model that is called without labels gives the very logits that it gives with them."""
    rows = rows_for(name if name in WRITERS else "seq2seq")
    batch = PaddingCollator()(rows[:2] if name == "mbart" else rows)  # mBART fails on a row without labels
    labels = batch.pop("labels")
    derived = head_of(model).derived_inputs(model, {**batch, "labels": labels})
    model.eval().double()
    with torch.no_grad():
        assert torch.equal(model(**batch, **derived).logits, model(**batch, labels=labels).logits)


def test_a_decoder_that_starts_with_the_last_label_of_a_row_without_any(tmp_path):
    """Transformers' own code fails on it."""
    students = [writers()["mbart"] for _ in range(2)]
    labels = torch.tensor([[5, 6, 2], [-100, -100, -100]])
    derived = Seq2SeqHead().derived_inputs(students[0], {"labels": labels})
    assert derived["decoder_input_ids"].tolist() == [[2, 5, 6], [2, 2, 1]]
    trainer = trainer_for(tmp_path, "seq2seq", student=students[0], teacher=students[1], preflight=True)
    trainer.train()
    assert trainer.state.global_step == 2


def test_the_batch_may_bring_its_own():
    batch = {"input_ids": SOURCE, "labels": LABELS, "decoder_input_ids": torch.tensor([[3, 4, 5], [3, 4, 5]])}
    assert Seq2SeqHead().derived_inputs(model_for("seq2seq", 1), batch) == {}
    assert Seq2SeqHead().derived_inputs(model_for("seq2seq", 1), {"input_ids": SOURCE}) == {}


def test_a_model_that_does_not_say_how():
    with pytest.raises(MissingInputError, match=r"Linear does not say how .*`decoder_input_ids`"):
        Seq2SeqHead().derived_inputs(torch.nn.Linear(2, 2), {"labels": LABELS})


def test_each_decoder_starts_as_it_is_used_to():
    batch = PaddingCollator()(rows_for("seq2seq"))
    starts = {
        name: Seq2SeqHead().derived_inputs(model, batch)["decoder_input_ids"][0, 0].item()
        for name, model in {"t5": model_for("seq2seq", 1), "bart": model_for("bart", 1)}.items()
    }
    assert starts == {"t5": 0, "bart": 2}


@pytest.mark.parametrize("task", WRITERS)
def test_without_the_labels_loss(tmp_path, task):
    """With alpha=0 the labels are only what the decoders have read; the gradient is that of the teacher alone."""
    student, teacher = model_for(task, 1), model_for(task, 2)
    steps, (log,), _ = recorded_run(tmp_path, student, teacher, rows_for(task), batch_size=8, alpha=0.0)
    assert "loss/labels" not in log and log["loss"] == pytest.approx(log["loss/soft"])
    brought = [dict(row) for row in rows_for(task)]
    for row in brought:
        shifted = Seq2SeqHead().derived_inputs(student, {"labels": torch.tensor([row["labels"]])})
        row["decoder_input_ids"] = shifted["decoder_input_ids"][0].tolist()
    same, (other,), _ = recorded_run(
        tmp_path, model_for(task, 1), model_for(task, 2), brought, batch_size=8, alpha=0.0
    )
    assert other["loss"] == pytest.approx(log["loss"], rel=1e-9)
    assert all(torch.allclose(steps[0][name], same[0][name]) for name in steps[0])


@pytest.mark.parametrize("task", WRITERS)
def test_the_student_moves_and_the_teacher_does_not(tmp_path, task):
    trainer = trainer_for(tmp_path, task, rows=float32(rows_for(task)), max_steps=12)
    student, teacher = state(trainer.model), state(trainer.teacher.model)
    trainer.train()
    assert any(not torch.equal(value, student[name]) for name, value in trainer.model.state_dict().items())
    assert all(torch.equal(value, teacher[name]) for name, value in trainer.teacher.model.state_dict().items())
    logs = loss_logs(trainer)
    assert logs[-2]["loss"] + logs[-1]["loss"] < logs[0]["loss"] + logs[1]["loss"]


def test_label_smoothing_reads_the_same_decoder_inputs(tmp_path):
    """The Trainer takes the labels away from the student then, and the decoder still reads them."""
    rows = rows_for("seq2seq")[:2]
    _, (log,), trainer = recorded_run(
        tmp_path, model_for("seq2seq", 1), model_for("seq2seq", 2), rows, batch_size=2, label_smoothing_factor=0.1
    )
    losses = []
    for row in rows:
        outputs = trainer.model(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]]))
        for scores, label in zip(outputs.logits[0].log_softmax(-1), row["labels"], strict=True):
            if label != -100:
                losses.append(-0.9 * scores[label].item() - 0.1 * scores.mean().item())
    assert log["loss/labels"] == pytest.approx(sum(losses) / len(losses), rel=1e-6)


def test_kinds():
    assert type(head_of(model_for("speech", 1))) is SpeechSeq2SeqHead
    assert type(head_of(model_for("bart", 1))) is Seq2SeqHead
    assert Seq2SeqHead().auto_class is AutoModelForSeq2SeqLM


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def float32(rows):
    return [
        {name: value.float() if name == "input_features" else value for name, value in row.items()} for row in rows
    ]

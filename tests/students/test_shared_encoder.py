"""A student that keeps the teacher's encoder."""

import copy

import pytest
import torch
from transformers import AutoModelForSpeechSeq2Seq, WhisperForConditionalGeneration

from hf_distill import share_encoder
from hf_distill.errors import UnsupportedModelError
from tests.gradients import recorded_run, relative_difference
from tests.tiny_models import bert, model_for, rows_for, t5
from tests.tiny_trainers import trainer_for


def whisper_pair():
    """A teacher of two layers on both sides, and a student with one in its decoder."""
    teacher = model_for("speech", 2).double()
    config = copy.deepcopy(teacher.config)
    config.decoder_layers = 1
    return WhisperForConditionalGeneration(config).double(), teacher


def test_it_is_the_teachers_own_and_frozen():
    student, teacher = whisper_pair()
    assert share_encoder(student, teacher) is student
    assert student.get_encoder() is teacher.get_encoder()
    assert not any(weight.requires_grad for weight in student.get_encoder().parameters())
    assert all(weight.requires_grad for weight in student.model.decoder.layers.parameters())


def test_the_gradient_is_that_of_a_frozen_copy(tmp_path):
    torch.manual_seed(0)
    student, teacher = whisper_pair()
    apart = copy.deepcopy(student)
    apart.get_encoder().load_state_dict(teacher.get_encoder().state_dict())
    apart.get_encoder().requires_grad_(False)
    share_encoder(student, teacher)
    rows, calls = rows_for("speech"), []
    teacher.get_encoder().register_forward_hook(lambda *_: calls.append(1))
    steps, _, _ = recorded_run(tmp_path, student, teacher, rows, 4, 2, preflight=False)
    # One for each micro-batch, and not one more for the student; the first is answered twice more, to try the heads.
    assert len(calls) == 4
    expected, _, _ = recorded_run(tmp_path, apart, copy.deepcopy(teacher), rows, 4, 2, preflight=False)
    assert relative_difference(steps[0], expected[0]) < 1e-9
    assert not any("encoder.layers" in name for name in steps[0] if "decoder" not in name)


def test_the_student_loads_alone(tmp_path):
    student, teacher = whisper_pair()
    before = copy.deepcopy(teacher.state_dict())
    trainer = trainer_for(
        tmp_path, "speech", student=share_encoder(student, teacher), teacher=teacher, rows=rows_for("speech")
    )
    trainer.train()
    trainer.save_model(tmp_path / "student")
    loaded = AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "student").eval()
    batch = {
        "input_features": torch.randn(2, 4, 16, dtype=torch.double),
        "decoder_input_ids": torch.tensor([[1], [1]]),
    }
    assert torch.equal(loaded(**batch).logits, student.eval()(**batch).logits)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_what_cannot_be_shared():
    with pytest.raises(UnsupportedModelError, match="student BertForSequenceClassification is no encoder–decoder"):
        share_encoder(bert(), model_for("bart", 1))
    with pytest.raises(UnsupportedModelError, match=r"'layers.1.* has the shape None in the student and \("):
        share_encoder(model_for("speech", 1), model_for("speech", 2))
    for model in (t5(1), model_for("bart", 1)):
        with pytest.raises(UnsupportedModelError, match=r"shares weights with its decoder \('.*shared.weight'\)"):
            share_encoder(model, copy.deepcopy(model))


@pytest.mark.parametrize("differs", ["inputs of the teacher's own", "parts of the sound hidden from the student"])
def test_it_runs_for_each_where_they_hear_different_things(tmp_path, differs):
    """As a frozen copy does, for which the student's own sound is never replaced by the teacher's."""
    student, teacher = whisper_pair()
    rows = rows_for("speech")
    if differs.startswith("inputs"):
        rows = [{**row, "teacher_input_features": row["input_features"] + 1} for row in rows]
    else:
        masking = {"apply_spec_augment": True, "mask_time_prob": 0.5, "mask_time_length": 2, "mask_time_min_masks": 1}
        student.config.update(masking)
    apart = copy.deepcopy(student)
    apart.get_encoder().load_state_dict(teacher.get_encoder().state_dict())
    apart.get_encoder().requires_grad_(False)
    teacher_apart = copy.deepcopy(teacher)
    share_encoder(student, teacher)
    steps, logs, trainer = recorded_run(tmp_path, student, teacher, rows, 4, 2, preflight=False)
    assert trainer._shares_encoder
    expected, expected_logs, _ = recorded_run(tmp_path, apart, teacher_apart, rows, 4, 2, preflight=False)
    assert relative_difference(steps[0], expected[0]) < 1e-9
    assert logs[0]["loss/labels"] == pytest.approx(expected_logs[0]["loss/labels"], rel=1e-9)

"""A loss that is no number ends training before the weights are changed, and its origin is named."""

import pytest
import torch

from hf_distill import Objective
from hf_distill.errors import NonFiniteError
from hf_distill.terms import HardLabelTerm, SoftTargetTerm
from tests.test_feature_training import trainer_of
from tests.tiny_models import model_for, rows_for
from tests.tiny_trainers import float32, loss_logs, trainer_for


NAN = float("nan")
SLOW_TO_LEARN = {"max_steps": 4, "train_sampling_strategy": "sequential", "learning_rate": 1e-3}


def spoil_rows_with(token, module, value=NAN):
    """Make the module answer rows that begin with this token with numbers that are not finite."""

    def spoil(module, inputs, output):
        spoilt = module.tokens[:, 0] == token
        return torch.where(spoilt.view(-1, *[1] * (output.ndim - 1)), value, output)

    def look(model, args, kwargs):
        module.tokens = kwargs["input_ids"]

    module.register_forward_hook(spoil)
    return look


def spoilt(model, name, token):
    model.register_forward_pre_hook(spoil_rows_with(token, model.get_submodule(name)), with_kwargs=True)
    return model


def error_of(trainer):
    with pytest.raises(NonFiniteError) as raised:
        trainer.train()
    return str(raised.value)


ROWS = rows_for("single_label")
TOKEN = ROWS[6]["input_ids"][0]
"""Row 6 alone begins with it, which is row 2 of the second batch of four."""


def test_the_row_has_a_token_of_its_own():
    assert [row["input_ids"][0] for row in ROWS].count(TOKEN) == 1


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_layer_rows_and_terms_are_named(tmp_path, who):
    models = {"student": model_for("single_label", 1), "teacher": model_for("single_label", 2)}
    spoilt(models[who], "bert.encoder.layer.0.output.dense", TOKEN)
    message = error_of(trainer_for(tmp_path, **models, **SLOW_TO_LEARN))
    assert f"the loss of a micro-batch of step 2 is nan on process 0: the {who} is first not finite" in message
    assert "after 'bert.encoder.layer.0.output.dense' (Linear) in rows [2] of 4" in message
    assert "term 'soft' is nan" in message
    assert ("term 'labels' is nan" in message) == (who == "student")
    assert "The weights are still those of before this step." in message


def test_the_weights_are_those_of_before_the_step(tmp_path):
    options = {**SLOW_TO_LEARN, "lr_scheduler_type": "constant"}
    teacher = spoilt(model_for("single_label", 2), "classifier", TOKEN)
    ended, short = (
        trainer_for(tmp_path, teacher=teacher, **options),
        trainer_for(tmp_path, **{**options, "max_steps": 1}),
    )
    before = {name: weight.clone() for name, weight in ended.model.state_dict().items()}
    error_of(ended)
    short.train()
    expected = short.model.state_dict()
    assert any(not torch.equal(weight, expected[name]) for name, weight in before.items())
    assert all(torch.equal(weight, expected[name]) for name, weight in ended.model.state_dict().items())


def test_an_input_is_named(tmp_path):
    rows = float32(rows_for("images"))
    rows[2]["pixel_values"][0, 0, 0] = float("inf")
    message = error_of(trainer_for(tmp_path, "images", rows=rows, **SLOW_TO_LEARN))
    assert "step 1 is nan on process 0: 'pixel_values' of the batch is not finite in rows [2] of 4;" in message
    assert "the student is first not finite after 'vit.embeddings" in message
    assert "which is given such numbers) in rows [2] of 4" in message


def test_weights_are_named(tmp_path):
    teacher = model_for("single_label", 2)
    teacher.bert.encoder.layer[1].output.dense.bias.data[0] = NAN
    message = error_of(trainer_for(tmp_path, teacher=teacher, preflight=False, **SLOW_TO_LEARN))
    assert "1 weights of the teacher are not finite, the first is 'bert.encoder.layer.1.output.dense.bias'" in message


def test_a_learned_part_is_named(tmp_path):
    trainer = trainer_of(tmp_path, preflight=False)
    next(iter(trainer._readers[0].parts.values())).weight.data[0] = NAN
    message = error_of(trainer)
    assert "1 weights of the student are not finite, the first is '_distillation.layers/hidden_1_2.weight'" in message
    assert "term 'layers/hidden' is nan" in message
    assert "term 'soft'" not in message


def test_a_term_is_named(tmp_path):
    def broken(student_logits, teacher_logits, temperature):
        values = (student_logits - teacher_logits).square().sum(-1)
        return torch.where(torch.arange(len(values)) == 3, NAN, values)

    terms = {"labels": (1.0, HardLabelTerm()), "broken": (1.0, SoftTargetTerm(divergence=broken))}
    message = error_of(trainer_for(tmp_path, objective=Objective(terms), preflight=False))
    assert "step 1 is nan on process 0: term 'broken' is nan. The weights" in message


def test_what_does_not_happen_again(tmp_path):
    student = model_for("single_label", 1)
    calls = []

    def spoil_once(module, inputs, output):
        calls.append(1)
        return output * NAN if len(calls) == 1 else output

    student.classifier.register_forward_hook(spoil_once)
    message = error_of(trainer_for(tmp_path, student=student, preflight=False))
    assert "process 0: run once more, without dropout, it is finite. The weights" in message


def test_looked_at_when_logging_alone(tmp_path):
    teacher = spoilt(model_for("single_label", 2), "classifier", TOKEN)
    options = {**SLOW_TO_LEARN, "logging_nan_inf_filter": False, "logging_steps": 3}
    trainer = trainer_for(tmp_path, teacher=teacher, **options)
    message = error_of(trainer)
    assert message.startswith(
        "of the losses up to step 3 these are not finite: loss is nan, loss/labels is nan, loss/s"
    )
    assert "`logging_nan_inf_filter=True`, which finds rows and layers" in message


def test_with_a_gradient_scaler_it_is_a_warning(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("hf_distill.finite_losses.logger.warning", said.append)
    teacher = spoilt(model_for("single_label", 2), "classifier", TOKEN)
    trainer = trainer_for(tmp_path, teacher=teacher, **SLOW_TO_LEARN)
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    trainer.train()
    assert len(loss_logs(trainer)) == 4
    assert said[0].startswith("The loss of a micro-batch of step 2 is nan")
    assert said[0].endswith("The gradient scaler leaves the step out.")


def test_sharded_models_are_not_run_once_more(tmp_path, monkeypatch):
    teacher = spoilt(model_for("single_label", 2), "classifier", TOKEN)
    trainer = trainer_for(tmp_path, teacher=teacher, preflight=False, **SLOW_TO_LEARN)
    monkeypatch.setattr("hf_distill.finite_losses.obstacle", lambda trainer: "weights are sharded")
    message = error_of(trainer)
    assert "process 0: the batch is not run once more to find the layer, since weights are sharded. The w" in message

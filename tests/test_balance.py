"""Terms that pull alike when training starts."""

import copy

import pytest
import torch

from hf_distill import HardLabelTerm, Linear, Objective, SoftTargetTerm
from hf_distill.balance import balancing_scales
from hf_distill.errors import ConfigurationError
from tests.reference import reference_means
from tests.test_trial_batches import Pipe
from tests.tiny_models import model_for, reformer, rows_for
from tests.tiny_trainers import loss_logs, trainer_for, unlabelled


def balanced(**terms):
    return Objective(
        terms or {"labels": (1.0, HardLabelTerm()), "soft": (0.5, SoftTargetTerm(2.0))}, weights="balanced"
    )


def norm_of(task, term):
    """Of the gradient of a term's mean over all rows, from plain loops."""
    student = model_for(task, 1).double()
    reference_means(student, model_for(task, 2).double(), task, rows_for(task), 2.0)[term].backward()
    return torch.stack([p.grad.norm() for p in student.parameters() if p.grad is not None]).norm().item()


@pytest.mark.parametrize("task", ["single_label", "tokens", "masked"])
@pytest.mark.parametrize("batch_size", [2, 8])
def test_scales_are_ratios_of_the_gradients(tmp_path, task, batch_size):
    """Over all rows together, so that the size of a micro-batch changes nothing."""
    scales = balancing_scales(
        trainer_for(tmp_path, task, objective=balanced(), per_device_train_batch_size=batch_size)
    )
    assert scales["labels"] == 1.0
    assert scales["soft"] == pytest.approx(norm_of(task, "labels") / norm_of(task, "soft"), rel=1e-4)


def test_without_labels_the_largest_is_the_measure(tmp_path):
    objective = balanced(small=(1.0, SoftTargetTerm(0.25)), large=(1.0, SoftTargetTerm(8.0)))
    scales = balancing_scales(trainer_for(tmp_path, objective=objective, rows=unlabelled(rows_for("single_label"))))
    assert sorted(scales.values())[0] == 1.0
    assert sorted(scales.values())[1] > 1.0


def test_the_run_is_that_of_the_weights_it_found(tmp_path):
    trainer = trainer_for(tmp_path, objective=balanced(), max_steps=3)
    scale = balancing_scales(trainer)["soft"]
    trainer.train()
    logs = loss_logs(trainer)
    assert [log["weight/soft"] for log in logs] == pytest.approx([0.5 * scale] * 3)
    assert all("weight/labels" not in log for log in logs)  # as it was given
    given = Objective({"labels": (1.0, HardLabelTerm()), "soft": (0.5 * scale, SoftTargetTerm(2.0))})
    other = trainer_for(tmp_path, objective=given, max_steps=3)
    other.train()
    for mine, yours in zip(trainer.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine, yours)
    assert trainer._given_objective.weights(0.0) == {"labels": 1.0, "soft": 0.5}


def test_a_schedule_is_scaled_as_a_whole(tmp_path):
    objective = balanced(labels=(1.0, HardLabelTerm()), soft=(Linear(0.0, 1.0), SoftTargetTerm(2.0)))
    trainer = trainer_for(tmp_path, objective=objective, max_steps=2)
    trainer.train()
    found = trainer.distillation_objective
    assert found.weights(0.0)["soft"] == 0.0
    assert found.weights(1.0)["soft"] == pytest.approx(
        balancing_scales(trainer_for(tmp_path, objective=objective))["soft"]
    )


def test_a_resumed_run_keeps_its_weights(tmp_path):
    """Though its student pulls otherwise by then."""
    runs = {}
    for name in ("whole", "cut"):
        trainer = trainer_for(
            tmp_path / name, objective=balanced(), max_steps=4, save_strategy="steps", save_steps=2, learning_rate=0.1
        )
        checkpoint = str(tmp_path / "whole" / "checkpoint-2") if name == "cut" else None
        trainer.train(resume_from_checkpoint=checkpoint)
        runs[name] = copy.deepcopy(trainer.model.state_dict()), loss_logs(trainer)[-1]["weight/soft"]
        assert balancing_scales(trainer)["soft"] != pytest.approx(2 * runs["whole"][1], rel=1e-3)
    assert runs["whole"][1] == runs["cut"][1]
    assert all(torch.equal(value, runs["cut"][0][name]) for name, value in runs["whole"][0].items())


def test_a_term_without_a_gradient(tmp_path):
    trainer = trainer_for(tmp_path, "masked", objective=balanced(), rows=rows_for("masked")[2:4])
    with pytest.raises(ConfigurationError, match=r"'labels': 0, 'soft': 0 on 2 rows"):
        trainer.train()


def test_gradients_that_cannot_be_measured(tmp_path):
    trainer = trainer_for(tmp_path, objective=balanced(), rows=Pipe(rows_for("single_label")), preflight=False)
    with pytest.raises(
        ConfigurationError, match="needs a gradient of each term before training, and the training data"
    ):
        balancing_scales(trainer)


def test_weights_that_are_no_choice():
    with pytest.raises(ConfigurationError, match="must be 'given' or 'balanced', got 'fair'"):
        Objective({"labels": (1.0, HardLabelTerm())}, weights="fair")
    with pytest.raises(
        ConfigurationError, match="'inner' has weights='balanced', and the one that it is a part of has not"
    ):
        Objective({"inner": (1.0, balanced())})
    assert Objective({"inner": (1.0, balanced())}, weights="balanced").is_balanced


def test_reversible_layers_have_no_gradient_to_try(tmp_path):
    with pytest.raises(ConfigurationError, match=r"before training, and Reformer.* has reversible layers"):
        balancing_scales(trainer_for(tmp_path, student=reformer(1), teacher=reformer(2), objective=balanced()))

"""What `Trainer` can do, `DistillationTrainer` can."""

import sys
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerCallback
from transformers.trainer_utils import HPSearchBackend

from hf_distill import recipes
from hf_distill.errors import ConfigurationError, MissingTeacherError
from tests.gradients import ALPHA, TEMPERATURE, GradientRecorder, relative_difference
from tests.reference import reference_means
from tests.test_feature_training import trainer_of
from tests.tiny_models import model_for, rows_for
from tests.tiny_trainers import loss_logs, trainer_for


SMOOTHING = 0.2


def one_step(output_dir, task, accumulation, **changes):
    """The gradient and the log of a step over 8 rows in float64."""
    recorder = GradientRecorder()
    trainer = trainer_for(
        output_dir,
        task,
        student=model_for(task, 1).double(),
        teacher=model_for(task, 2).double(),
        callbacks=[recorder],
        max_steps=1,
        learning_rate=0.0,
        per_device_train_batch_size=8 // accumulation,
        gradient_accumulation_steps=accumulation,
        **changes,
    )
    trainer.train()
    (gradients,), (log,) = recorder.steps, loss_logs(trainer)
    return gradients, log


def smoothed_gradient(task, rows):
    """Row by row and label by label: (1 − ε) · nll + ε · mean over the classes of −log p."""
    student, teacher = model_for(task, 1).double().train(), model_for(task, 2).double().eval()
    losses, shift = [], int(task == "causal")
    for row in rows:
        log_p = student(torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
        if task == "single_label":
            pairs = [(log_p, row["labels"])]
        else:
            labels = row["labels"][shift:]
            pairs = [(log_p[t], label) for t, label in enumerate(labels) if label != -100]
        losses += [-(1 - SMOOTHING) * scores[label] - SMOOTHING * scores.mean() for scores, label in pairs]
    mean = sum(losses) / len(losses)
    soft = reference_means(student, teacher, task, rows, TEMPERATURE)["soft"]
    (ALPHA * mean + (1 - ALPHA) * soft).backward()
    return mean.item(), {name: p.grad for name, p in student.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("task", ["single_label", "tokens", "masked", "causal"])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_label_smoothing(tmp_path, task, accumulation):
    """The second micro-batch of the masked rows holds no label."""
    gradients, log = one_step(tmp_path, task, accumulation, label_smoothing_factor=SMOOTHING)
    mean, expected = smoothed_gradient(task, rows_for(task))
    assert log["loss/labels"] == pytest.approx(mean, rel=1e-6)
    assert relative_difference(gradients, expected) < 1e-6


def test_smoothed_losses_are_no_perplexity(tmp_path):
    rows = rows_for("causal")
    assert "eval_perplexity" in trainer_for(tmp_path, "causal").evaluate(rows)
    assert "eval_perplexity" not in trainer_for(tmp_path, "causal", label_smoothing_factor=0.1).evaluate(rows)


def test_answers_are_not_smoothed(tmp_path):
    """Neither does `Trainer`: it knows no `labels` there."""
    plain, plain_log = one_step(tmp_path, "answers", 4)
    smoothed, log = one_step(tmp_path, "answers", 4, label_smoothing_factor=SMOOTHING)
    assert log["loss/labels"] == plain_log["loss/labels"]
    assert relative_difference(smoothed, plain) == 0.0


def doubled_cross_entropy(outputs, labels, num_items_in_batch=None):
    logits = outputs["logits"]
    total = torch.nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="sum")
    return 2 * total / num_items_in_batch


@pytest.mark.parametrize("task", ["single_label", "tokens", "masked"])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_loss_function_of_the_users_own(tmp_path, task, accumulation):
    gradients, log = one_step(tmp_path, task, accumulation, compute_loss_func=doubled_cross_entropy)
    student, teacher = model_for(task, 1).double().train(), model_for(task, 2).double().eval()
    means = reference_means(student, teacher, task, rows_for(task), TEMPERATURE)
    (2 * ALPHA * means["labels"] + (1 - ALPHA) * means["soft"]).backward()
    expected = {name: p.grad for name, p in student.named_parameters() if p.grad is not None}
    assert log["loss/labels"] == pytest.approx(2 * means["labels"].item(), rel=1e-6)
    assert relative_difference(gradients, expected) < 1e-6


def test_a_loss_function_of_the_users_own_where_nothing_counts(tmp_path):
    rows = [{**row, "labels": [-100] * len(row["labels"])} for row in rows_for("masked")]
    gradients, log = one_step(tmp_path, "masked", 4, rows=rows, compute_loss_func=doubled_cross_entropy)
    assert log["loss"] == log["loss/labels"] == 0.0
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients.values())
    metrics = trainer_for(tmp_path, "masked", compute_loss_func=doubled_cross_entropy).evaluate(rows_for("masked")[:4])
    assert metrics["eval_loss/labels"] > 0


def test_the_best_model_is_loaded_at_the_end(tmp_path):
    trainer = trainer_for(
        tmp_path,
        max_steps=6,
        learning_rate=0.3,
        lr_scheduler_type="constant",
        eval_dataset=rows_for("single_label"),
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=1,
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss/soft",
        greater_is_better=False,
    )
    trainer.train()
    losses = [log["eval_loss/soft"] for log in trainer.state.log_history if "eval_loss/soft" in log]
    assert len(losses) == 6 and min(losses) < losses[-1]
    assert trainer.state.best_metric == min(losses)
    assert trainer.evaluate()["eval_loss/soft"] == pytest.approx(min(losses), rel=1e-6)


class ShortOfMemory(TrainerCallback):
    """Fails once, after a step has been made and summed up."""

    def __init__(self):
        self.sizes = []

    def on_substep_end(self, args, state, control, **kwargs):
        if not self.sizes:
            self.sizes.append("out of memory")
            raise RuntimeError("CUDA out of memory.")


@pytest.mark.slow
@pytest.mark.parametrize("made", [trainer_for, trainer_of], ids=["logits", "learned parts"])
def test_a_batch_size_that_is_found(tmp_path, made):
    """What the failed attempt had summed up is neither logged nor learned from."""
    options = {"gradient_accumulation_steps": 2, "learning_rate": 0.0, "max_steps": 1}
    recorders = GradientRecorder(), GradientRecorder()
    found = made(tmp_path, callbacks=[ShortOfMemory(), recorders[0]], auto_find_batch_size=True, **options)
    found.train()
    assert found._train_batch_size < 4 and found.state.global_step == 1
    size = found._train_batch_size
    plain = made(tmp_path, callbacks=[recorders[1]], per_device_train_batch_size=size, **options)
    plain.train()
    ((mine,), (yours,)) = (recorder.steps for recorder in recorders)
    assert mine.keys() == yours.keys() and sum(gradient.norm() for gradient in yours.values()) > 0.1
    for name, gradient in yours.items():
        torch.testing.assert_close(mine[name], gradient)
    assert any(name.startswith("_distillation.") for name in mine) == (made is trainer_of)
    (ours,), (theirs,) = loss_logs(found), loss_logs(plain)
    for name in ("loss", *(f"loss/{name}" for name in found.distillation_objective.terms)):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-6)


def test_resuming_with_restored_callbacks_finds_nothing_strange(tmp_path, caplog):
    options = {"save_strategy": "steps", "save_steps": 1, "restore_callback_states_from_checkpoint": True}
    trainer_for(tmp_path, **options).train()
    trainer_for(tmp_path, **options).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert "callbacks not included" not in caplog.text


# ---- Students made anew, and searches ----------------------------------------------------------------------------


class Watcher(TrainerCallback):
    """Writes down what the trainer learns when each run ends."""

    def __init__(self):
        self.trainer, self.runs = None, []

    def on_train_end(self, args, state, control, **kwargs):
        objective = self.trainer.distillation_objective
        self.runs.append((objective.weights(0.0), objective.terms["soft"].term.temperature))


def searcher(output_dir, **changes):
    watcher = Watcher()
    trainer = trainer_for(
        output_dir,
        model_init=lambda: model_for("single_label", 1),
        eval_dataset=rows_for("single_label"),
        eval_strategy="steps",
        eval_steps=1,
        max_steps=3,
        alpha=1,  # an integer, as a user may write it
        callbacks=[watcher],
        **changes,
    )
    watcher.trainer = trainer
    return trainer, watcher


@pytest.fixture
def in_search(monkeypatch):
    """What `hyperparameter_search` sets before its first trial, for a backend whose trials are plain dicts."""
    monkeypatch.setattr("transformers.integrations.hp_params", dict)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=SimpleNamespace(id="0")))

    def prepared(trainer):
        trainer.hp_search_backend = HPSearchBackend.WANDB
        trainer.compute_objective = lambda metrics: metrics["eval_loss/soft"]
        return trainer

    return prepared


def test_a_student_made_anew(tmp_path):
    trainer, watcher = searcher(tmp_path)
    first = trainer.model
    trainer.args.alpha = 0.5
    for _ in range(2):
        trainer.train()
    assert trainer.model is not first
    assert watcher.runs == [({"labels": 0.5, "soft": 0.5}, TEMPERATURE)] * 2
    assert loss_logs(trainer)[-1]["loss/soft"] > 0


def test_a_search_rebuilds_the_objective_for_every_trial(tmp_path, in_search):
    trainer, watcher = searcher(tmp_path)
    in_search(trainer)
    losses = []
    for trial in ({"alpha": 0.25, "temperature": 4.0}, {"alpha": 0.5, "temperature": 1.0}):
        trainer.objective = None
        trainer.train(trial=dict(trial))
        losses.append(trainer.objective)
    assert watcher.runs == [({"labels": 0.25, "soft": 0.75}, 4.0), ({"labels": 0.5, "soft": 0.5}, 1.0)]
    assert [type(loss) for loss in losses] == [float, float] and losses[0] != losses[1]
    assert losses[1] == trainer.evaluate()["eval_loss/soft"]


def test_a_search_over_the_smoothing_of_labels(tmp_path, in_search):
    trainer = in_search(searcher(tmp_path)[0])
    losses = []
    for factor in (0.0, 0.5, 0.0):
        trainer.train(trial={"alpha": 0.5, "label_smoothing_factor": factor})
        losses.append(trainer.evaluate()["eval_loss/labels"])
    assert losses[0] == losses[2] != losses[1]


@pytest.mark.parametrize(
    "trial, message",
    [({"alpha": 1.5}, r"alpha must be .*, got 1\.5"), ({"alpha": 0.5, "temperature": 0.0}, r"got 0\.0")],
)
def test_a_search_outside_the_range(tmp_path, in_search, trial, message):
    with pytest.raises(ConfigurationError, match=message):
        in_search(searcher(tmp_path)[0]).train(trial=trial)


def test_a_search_that_an_objective_would_ignore(tmp_path, in_search):
    trainer = trainer_for(tmp_path, model_init=lambda: model_for("single_label", 1), objective=recipes.hinton())
    with pytest.raises(ConfigurationError, match=r"`args` has temperature=4\.0, and `objective=` would ignore it"):
        in_search(trainer).train(trial={"temperature": 4.0})


def test_a_search_that_comes_to_need_a_teacher(tmp_path, in_search):
    trainer = in_search(searcher(tmp_path, teacher=False)[0])
    with pytest.raises(MissingTeacherError, match="there is none"):
        trainer.train(trial={"alpha": 0.5})


@pytest.mark.slow
def test_a_search_with_optuna(tmp_path):
    optuna = pytest.importorskip("optuna", reason="needs optuna")
    optuna.logging.disable_default_handler()
    trainer, watcher = searcher(tmp_path)
    best = trainer.hyperparameter_search(
        hp_space=lambda trial: {"alpha": trial.suggest_float("alpha", 0.1, 0.9)},
        compute_objective=lambda metrics: metrics["eval_loss"],
        n_trials=3,
        backend="optuna",
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=optuna.pruners.NopPruner(),
    )
    assert len({weights["labels"] for weights, _ in watcher.runs}) == 3
    assert best.hyperparameters["alpha"] in [weights["labels"] for weights, _ in watcher.runs]

"""Reports of every head, of real tiny models."""

import json

import pytest
import torch

from hf_distill import cache_teacher, distillation_report
from hf_distill.errors import ClassMismatchError, ConfigurationError, EmptyDatasetError, MissingTeacherError
from tests.report.tiny_reports import baseline_for, reported_trainer, rows_of, tiny_report
from tests.slow_cases import slow_but
from tests.tiny_models import ALL_HEADS, model_for
from tests.tiny_trainers import trainer_for, unlabelled


@pytest.mark.parametrize("task", slow_but(["single_label", "tokens", "masked", "seq2seq"], ALL_HEADS))
def test_every_head(task, tmp_path):
    extra = {"alpha": 0.0} if task == "embeddings" else {}
    trainer = reported_trainer(tmp_path, task, **extra)
    report = distillation_report(trainer, baseline_for(trainer, task), num_resamples=20, batch_sizes=(2,))
    assert bool(report.metrics) == (task != "embeddings")
    for metric in report.metrics.values():
        assert list(metric.models) == ["teacher", "baseline", "student"]
        assert metric.models["baseline"] == metric.models["student"]  # the same weights
        assert metric.over_baseline.p_value in (None, 1.0)
    assert report.imitation["student"] == report.imitation["baseline"]
    assert report.num_rows == 8 and report.terms and report.task == type(trainer.head).__name__
    assert all(len(each.cost.timings) in (1, 2) for each in report.models.values())
    assert json.loads(report.to_json())["num_rows"] == 8


def test_numbers_are_those_of_the_models(tmp_path):
    trainer = reported_trainer(tmp_path, report_agreement=True)
    report = distillation_report(trainer, num_resamples=20, batch_sizes=())
    rows = rows_of("single_label")
    chosen = {}
    for name, model in {"student": trainer.model, "teacher": trainer.teacher.model}.items():
        with torch.no_grad():
            chosen[name] = [model.eval()(torch.tensor([row["input_ids"]])).logits.argmax().item() for row in rows]
        hits = [choice == row["labels"] for choice, row in zip(chosen[name], rows, strict=True)]
        assert report.metrics["accuracy"].models[name].value == pytest.approx(sum(hits) / 8)
    agree = sum(one == two for one, two in zip(*chosen.values(), strict=True)) / 8
    assert report.imitation["student"].agreement.value == agree
    metrics = trainer.evaluate()
    assert metrics["eval_agreement"] == pytest.approx(agree)
    assert metrics["eval_loss/soft"] > 0
    assert "labels alone" in report.notes[0]


def test_perplexity_is_that_of_the_evaluation(tmp_path):
    trainer = reported_trainer(tmp_path, "causal")
    report = distillation_report(trainer, num_resamples=10, batch_sizes=())
    expected = trainer.evaluate()["eval_perplexity"]
    assert report.metrics["perplexity"].models["student"].value == pytest.approx(expected, rel=1e-5)
    retention = report.metrics["perplexity"].models["teacher"].value / expected
    assert report.metrics["perplexity"].retention.value == pytest.approx(retention, rel=1e-5)


def test_the_models_are_left_as_they_were(tmp_path):
    trainer = reported_trainer(tmp_path)
    baseline = baseline_for(trainer).train()
    trainer.model.train()
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    state = torch.get_rng_state()
    distillation_report(trainer, baseline, num_resamples=5, batch_sizes=(1,))
    assert trainer.model.training and baseline.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


def test_curves_terms_and_classes():
    report = tiny_report()
    assert [step for step, _ in report.curves["loss/soft"]] == [1, 2, 3, 4]
    assert [step for step, _ in report.curves["eval_loss/labels"]] == [2, 4]
    assert not any("runtime" in name for name in report.curves)
    assert set(report.terms) == {"labels", "soft"} and -1 <= report.terms["soft"].cosine <= 1
    assert [each.name for each in report.classes] == ["bad", "<fair>", "good & cheap"]
    assert sum(each.support for each in report.classes) == 8
    assert "SoftTargetTerm(temperature=3.0, divergence=forward_kl" in report.settings["term soft"]


def test_teacher_classes_in_another_order(tmp_path):
    trainer = reported_trainer(tmp_path)
    report = distillation_report(trainer, num_resamples=5, batch_sizes=())
    teacher = model_for("single_label", 2)
    teacher.config.id2label = {0: "good & cheap", 1: "bad", 2: "<fair>"}
    teacher.config.label2id = {name: index for index, name in teacher.config.id2label.items()}
    student = model_for("single_label", 1)
    student.config.id2label = trainer.model.config.id2label
    order = [2, 0, 1]
    with torch.no_grad():
        teacher.classifier.weight.copy_(teacher.classifier.weight[order].clone())
        teacher.classifier.bias.copy_(teacher.classifier.bias[order].clone())
    other = trainer_for(tmp_path, student=student, teacher=teacher, eval_dataset=rows_of("single_label"))
    again = distillation_report(other, num_resamples=5, batch_sizes=())
    assert again.metrics["accuracy"].models == report.metrics["accuracy"].models
    assert again.imitation == report.imitation


def test_rows_without_labels(tmp_path):
    trainer = reported_trainer(tmp_path, alpha=0.0)
    report = distillation_report(trainer, eval_dataset=unlabelled(rows_of("single_label")), batch_sizes=())
    assert not report.metrics and report.imitation["student"].agreement is not None
    assert any("no labels" in note for note in report.notes)


def test_an_ensemble_is_not_timed(tmp_path):
    teachers = [model_for("single_label", 2), model_for("single_label", 2)]
    trainer = trainer_for(tmp_path, teacher=teachers, eval_dataset=rows_of("single_label"))
    report = distillation_report(trainer, num_resamples=5, batch_sizes=(1,))
    assert report.models["teacher"].cost.timings == () and report.models["teacher"].class_name == "EnsembleTeacher"
    assert report.metrics["accuracy"].models["teacher"].value >= 0


@pytest.mark.parametrize(("top_k", "drawn_at"), [(None, None), (3, None), (3, 3.0)])
def test_kept_answers_in_place_of_the_teacher(top_k, drawn_at, tmp_path):
    trainer = reported_trainer(tmp_path, "causal")
    known = distillation_report(trainer, num_resamples=10, batch_sizes=())
    rows = rows_of("causal")
    collator = trainer.data_collator
    options = {"data_collator": collator, "top_k": top_k, "drawn_at": drawn_at, "dtype": "float32"}
    cache_teacher(trainer.teacher, rows, tmp_path / "answers", **options)
    trainer = reported_trainer(tmp_path, "causal", teacher=str(tmp_path / "answers"))
    report = distillation_report(trainer, num_resamples=10, batch_sizes=())
    assert report.models["teacher"].cost is None
    assert "cache of answers" in " ".join(report.notes)
    if drawn_at is None:
        assert report.imitation["student"].agreement.value == known.imitation["student"].agreement.value
    models = report.metrics["perplexity"].models
    if top_k is None:
        assert models["teacher"].value == pytest.approx(known.metrics["perplexity"].models["teacher"].value, rel=1e-5)
        assert report.imitation["student"].kl.value == pytest.approx(known.imitation["student"].kl.value, rel=1e-3)
    elif drawn_at is not None:
        assert "teacher" not in models and "Tokens of the teacher were drawn" in " ".join(report.notes)
        assert report.imitation["student"].kl is None
    else:
        assert "teacher" not in models and "likeliest tokens" in " ".join(report.notes)
        assert 0 < report.imitation["student"].kl.value < known.imitation["student"].kl.value


def test_refusals(tmp_path):
    trainer = reported_trainer(tmp_path)
    with pytest.raises(ConfigurationError, match=r"`confidence` .* got 95; .*`num_resamples` .* got 0"):
        distillation_report(trainer, confidence=95, num_resamples=0)
    with pytest.raises(ClassMismatchError, match=r"the baseline's .*LABEL_0"):
        distillation_report(trainer, model_for("single_label", 1))
    with pytest.raises(EmptyDatasetError, match="no rows to report on"):
        distillation_report(trainer, eval_dataset=[])
    alone = trainer_for(tmp_path, teacher=False, alpha=1.0, eval_dataset=rows_of("single_label"))
    with pytest.raises(MissingTeacherError, match="the trainer has none"):
        distillation_report(alone)

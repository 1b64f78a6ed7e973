"""Detectors through the Trainer: they learn, and what they learn is what the formulas say."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from hf_distill import OnlineTeacher, Teacher, check_invariances, preflight, recipes
from hf_distill.heads import ObjectDetectionHead, head_of
from tests.detection_reference import reference_means
from tests.gradients import relative_difference
from tests.processes import run_two_processes
from tests.slow_cases import slow_but
from tests.tiny_detection_trainers import TEACHER_ONLY, TEMPERATURE, detection_trainer, recorded_gradient, unlabelled
from tests.tiny_detectors import FOCAL, NO_OBJECT, READS_MASK, ImageCollator, detector, images_with_objects
from tests.tiny_trainers import loss_logs


PAIRS = [(kind, kind) for kind in NO_OBJECT + FOCAL]
PAIRS += [("yolos", "detr"), ("detr", "yolos"), ("conditional_detr", "rt_detr"), ("rt_detr", "deformable_detr")]


@pytest.mark.parametrize("student_kind, teacher_kind", slow_but([PAIRS[0], PAIRS[-1]], PAIRS))
def test_the_student_learns_and_the_teacher_does_not(tmp_path, student_kind, teacher_kind):
    student, teacher = detector(student_kind), detector(teacher_kind, 2)
    kind = student_kind if student_kind in READS_MASK else teacher_kind
    before = copy.deepcopy(student.state_dict()), copy.deepcopy(teacher.state_dict())
    options = {"max_steps": 20, "learning_rate": 2e-3, "preflight": False}
    objective = recipes.hungarian_matching(labels=0.1)
    trainer = detection_trainer(tmp_path, student, teacher, kind, objective=objective, **options)
    trainer.train()
    trained = [name for name, parameter in student.named_parameters() if parameter.requires_grad]
    assert not all(torch.equal(before[0][name], student.state_dict()[name]) for name in trained)
    assert all(torch.equal(before[1][name], value) for name, value in teacher.state_dict().items())
    logs = loss_logs(trainer)
    for term in ("loss", "loss/soft", "loss/boxes") if student_kind in NO_OBJECT else ("loss",):
        values = [log[term] for log in logs]
        assert sum(values[-4:]) < sum(values[:4])


@pytest.mark.parametrize("kind", ["detr", "yolos", "conditional_detr", "deformable_detr"])
@pytest.mark.parametrize("split", [(4, 1), (2, 2), (1, 4)])
def test_gradient_equals_the_loops_however_a_batch_is_split(tmp_path, kind, split):
    """These have no batch normalisation that is trained. Only the teacher is learned from: the own loss is a mean."""
    rows = unlabelled(images_with_objects())
    sizes = {"per_device_train_batch_size": split[0], "gradient_accumulation_steps": split[1]}
    found, log = recorded_gradient(tmp_path, detector(kind), detector(kind, 2), kind, rows=rows, **sizes)
    student, teacher = detector(kind).double().train(), detector(kind, 2).double().eval()
    singles = [ImageCollator(kind, torch.float64)([row]) for row in rows]
    means = reference_means(student, teacher, singles, TEMPERATURE, kind in NO_OBJECT)
    (0.7 * means["soft"] + 0.4 * means["boxes"]).backward()
    expected = {name: p.grad for name, p in student.named_parameters() if p.grad is not None and name in found}
    assert sum(gradient.norm() for gradient in expected.values()) > 1e-3
    assert relative_difference({name: found[name] for name in expected}, expected) < 1e-6
    assert log["loss/soft"] == pytest.approx(means["soft"].item(), rel=1e-6)
    assert log["loss/boxes"] == pytest.approx(means["boxes"].item(), rel=1e-6)


@pytest.mark.parametrize("kind, queries", [("detr", (3, 5)), ("detr", (5, 3)), ("conditional_detr", (3, 5))])
def test_unequal_numbers_of_queries_equal_the_loops(tmp_path, kind, queries):
    def models():
        return detector(kind, num_queries=queries[0]), detector(kind, 2, num_queries=queries[1])

    rows = unlabelled(images_with_objects())
    found, log = recorded_gradient(tmp_path, *models(), kind, rows=rows)
    student, teacher = (model.double() for model in models())
    singles = [ImageCollator(kind, torch.float64)([row]) for row in rows]
    means = reference_means(student.train(), teacher.eval(), singles, TEMPERATURE, kind in NO_OBJECT)
    (0.7 * means["soft"] + 0.4 * means["boxes"]).backward()
    expected = {name: p.grad for name, p in student.named_parameters() if p.grad is not None and name in found}
    assert relative_difference({name: found[name] for name in expected}, expected) < 1e-6
    assert log["loss/soft"] == pytest.approx(means["soft"].item(), rel=1e-6)


def permuted_queries(model, order):
    with torch.no_grad():
        weight = model.model.query_position_embeddings.weight
        weight.copy_(weight[order].clone())
    return model


def named(model, *names):
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}
    return model


def permuted_classes(model, order):
    with torch.no_grad():
        for parameter in model.class_labels_classifier.parameters():
            parameter.copy_(parameter[order].clone())
    return model


def test_the_order_of_the_teachers_queries_changes_nothing(tmp_path):
    plain, _ = recorded_gradient(tmp_path, detector("detr"), detector("detr", 2), "detr")
    order = torch.tensor([2, 0, 3, 1])
    shuffled, _ = recorded_gradient(tmp_path, detector("detr"), permuted_queries(detector("detr", 2), order), "detr")
    other, _ = recorded_gradient(tmp_path, detector("detr"), detector("detr", 3), "detr")
    assert relative_difference(shuffled, plain) < 1e-10
    assert relative_difference(other, plain) > 1e-2


@pytest.mark.parametrize("kind", ["detr", "conditional_detr"])
def test_the_order_of_the_teachers_classes_changes_nothing(tmp_path, kind):
    order = [2, 0, 1, 3] if kind == "detr" else [2, 0, 1]

    def student():
        return named(detector(kind), "cat", "dog", "car")

    plain, _ = recorded_gradient(tmp_path, student(), named(detector(kind, 2), "cat", "dog", "car"), kind)
    permuted = permuted_classes(detector(kind, 2), order)
    by_name, _ = recorded_gradient(tmp_path, student(), named(copy.deepcopy(permuted), "car", "cat", "dog"), kind)
    ignored, _ = recorded_gradient(tmp_path, student(), named(permuted, "cat", "dog", "car"), kind)
    assert relative_difference(by_name, plain) < 1e-10
    assert relative_difference(ignored, plain) > 1e-2


def test_the_default_objective_works_and_is_rehearsed(tmp_path, capsys):
    trainer = detection_trainer(tmp_path, detector("detr"), detector("detr", 2), "detr", alpha=0.5, max_steps=3)
    trainer.train()
    assert "1 labels" in capsys.readouterr().out
    assert {"loss/labels", "loss/soft"} <= set(loss_logs(trainer)[0])


def test_the_labels_are_the_models_own_loss(tmp_path):
    """Averaged over micro-batches."""
    rows = images_with_objects()
    trainer = detection_trainer(
        tmp_path,
        detector("detr"),
        detector("detr", 2),
        "detr",
        alpha=0.5,
        learning_rate=0.0,
        max_steps=1,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
    )
    trainer.train()
    collator, model = ImageCollator("detr"), detector("detr").train()
    expected = sum(model(**collator(rows[start : start + 2])).loss.item() for start in (0, 2)) / 2
    assert loss_logs(trainer)[0]["loss/labels"] == pytest.approx(expected, rel=1e-5)


def test_boxes_are_kept_where_the_user_computes_the_loss_of_the_labels(tmp_path):
    def loss(outputs, labels, num_items_in_batch=None):
        assert len(labels) == 4 and outputs.loss is None
        return outputs.logits.square().mean() * 4 / num_items_in_batch

    objective = recipes.hungarian_matching()
    models = detector("detr"), detector("detr", 2)
    options = {"objective": objective, "compute_loss_func": loss, "max_steps": 1, "learning_rate": 0.0}
    trainer = detection_trainer(tmp_path, *models, "detr", **options)
    trainer.train()
    batch = ImageCollator("detr")(images_with_objects())
    expected = detector("detr").train()(**batch).logits.square().mean().item() * 4
    assert loss_logs(trainer)[0]["loss/labels"] == pytest.approx(expected, rel=1e-5)
    assert loss_logs(trainer)[0]["loss/boxes"] > 0


@pytest.mark.parametrize("alpha, warns", [(0.0, True), (0.5, False)])
def test_classes_alone_teach_no_boxes(tmp_path, monkeypatch, alpha, warns):
    said = []
    monkeypatch.setattr(preflight.logger, "warning_once", said.append)
    trainer = detection_trainer(tmp_path, detector("detr"), detector("detr", 2), "detr", alpha=alpha, max_steps=1)
    trainer.train()
    assert any("(soft) has neither the labels nor a `BoxTerm`, so nothing" in warning for warning in said) == warns


def test_a_teacher_alone_needs_no_labels(tmp_path):
    rows = unlabelled(images_with_objects())
    objective = recipes.hungarian_matching(labels=0)
    trainer = detection_trainer(
        tmp_path, detector("yolos"), detector("yolos", 2), "yolos", rows=rows, objective=objective, max_steps=2
    )
    trainer.train()
    metrics = trainer.evaluate(rows)
    assert metrics["eval_loss"] == pytest.approx(metrics["eval_loss/soft"] + metrics["eval_loss/boxes"])


@pytest.mark.parametrize("kind", ["detr", "rt_detr"])
def test_evaluation_is_exact_and_counts_images(tmp_path, kind):
    rows, values = images_with_objects(), {}
    for size in (1, 3, 4):
        trainer = detection_trainer(
            tmp_path,
            detector(kind),
            detector(kind, 2),
            kind,
            objective=recipes.hungarian_matching(),
            per_device_eval_batch_size=size,
            report_agreement=True,
        )
        values[size] = trainer.evaluate(rows)
    for name in ("eval_loss/soft", "eval_loss/boxes", "eval_agreement"):
        assert values[1][name] == pytest.approx(values[4][name], rel=1e-4)
        assert values[3][name] == pytest.approx(values[4][name], rel=1e-4)
    assert 0 <= values[4]["eval_agreement"] <= 1
    assert values[4]["eval_loss/labels"] > 0


def test_agreement_with_oneself_is_complete(tmp_path):
    student = detector("detr")
    trainer = detection_trainer(tmp_path, student, copy.deepcopy(student), "detr", report_agreement=True)
    assert trainer.evaluate(images_with_objects())["eval_agreement"] == 1.0


def test_labels_reach_metrics_image_by_image(tmp_path):
    """With `eval_do_concat_batches=False`, as Transformers asks of detectors."""
    seen = {}

    def metrics(prediction):
        seen["labels"] = [labels for batch in prediction.label_ids for labels in batch]
        return {}

    trainer = detection_trainer(
        tmp_path,
        detector("detr"),
        detector("detr", 2),
        "detr",
        compute_metrics=metrics,
        eval_do_concat_batches=False,
        per_device_eval_batch_size=2,
    )
    trainer.evaluate(images_with_objects())
    assert [len(each["class_labels"]) for each in seen["labels"]] == [1, 2, 0, 3]


@pytest.mark.parametrize("objective", [TEACHER_ONLY, recipes.hungarian_matching()], ids=["teacher", "labels"])
def test_invariances_hold_but_for_the_labels(tmp_path, objective):
    trainer = detection_trainer(tmp_path, detector("detr"), detector("detr", 2), "detr", objective=objective)
    report = check_invariances(trainer, num_rows=4)
    if objective is TEACHER_ONLY:
        assert report.held and report.dtype == torch.float64, str(report)
        assert report["accumulation"].held and report["order of rows"].held
    else:
        assert report["order of rows"].held, str(report)
        assert report["accumulation"].held is False
        assert "divided by the objects of a micro-batch" in report["accumulation"].reason


class SomeTeacher(Teacher):
    """A teacher of one's own, whose boxes come in another order."""

    def __init__(self, model, order):
        self.inner, self.order = OnlineTeacher(model, head_of(model)), order

    @property
    def input_names(self):
        return self.inner.input_names

    def signals(self, batch):
        signals = self.inner.signals(batch)
        return type(signals)(signals.logits[:, self.order], boxes=signals.boxes[:, self.order])


class Wrapped(nn.Module):
    """A student that is no model of Transformers."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values, pixel_mask=None, labels=None):
        return self.model(pixel_values=pixel_values, pixel_mask=pixel_mask, labels=labels)


def test_the_boxes_of_any_teacher_and_any_student_are_matched(tmp_path):
    expected, _ = recorded_gradient(tmp_path, detector("detr"), detector("detr", 2), "detr")
    teacher = SomeTeacher(detector("detr", 2).double(), torch.tensor([2, 0, 3, 1]))
    found, _ = recorded_gradient(tmp_path, detector("detr"), teacher, "detr")
    assert relative_difference(found, expected) < 1e-10
    student = Wrapped(detector("detr"))
    wrapped, _ = recorded_gradient(tmp_path, student, detector("detr", 2), "detr", head=ObjectDetectionHead())
    wrapped = {name.removeprefix("model."): gradient for name, gradient in wrapped.items()}
    assert relative_difference(wrapped, expected) < 1e-10


def test_a_teacher_from_a_folder(tmp_path):
    detector("detr", 2).save_pretrained(tmp_path / "teacher")
    trainer = detection_trainer(tmp_path, detector("detr"), tmp_path / "teacher", "detr", alpha=0.5, max_steps=1)
    trainer.train()
    assert loss_logs(trainer)[0]["loss/soft"] > 0


def test_answers_may_be_kept_for_the_backward_pass():
    """Answers of torch.inference_mode may not."""
    model = detector("detr", 2)
    signals = OnlineTeacher(model, head_of(model)).signals(ImageCollator("detr")(images_with_objects()))
    boxes = torch.ones_like(signals.boxes, requires_grad=True)
    (boxes * signals.boxes).sum().backward()
    assert torch.equal(boxes.grad, signals.boxes)


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_equal_one(tmp_path):
    """Three images to evaluate, so that one is repeated to fill up the last batch. The rehearsal must not wait."""
    run_two_processes(Path(__file__).with_name("detection_processes.py"), tmp_path)
    objective = recipes.hungarian_matching()
    trainer = detection_trainer(tmp_path, detector("detr"), detector("detr", 2), "detr", objective=objective)
    expected = trainer.evaluate(images_with_objects()[:3])
    gradient, _ = recorded_gradient(tmp_path, detector("detr"), detector("detr", 2), "detr")
    for rank in range(2):
        saved = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        for term in ("soft", "boxes"):
            assert saved["metrics"][f"eval_loss/{term}"] == pytest.approx(expected[f"eval_loss/{term}"], rel=1e-4)
        assert saved["metrics"]["eval_loss/labels"] > 0
        assert relative_difference(saved["gradients"], gradient) < 1e-6

"""A teacher that is made of others."""

import threading

import pytest
import torch

from hf_distill import HiddenStateTerm, Objective, OnlineTeacher, Teacher, check_invariances, head_of
from hf_distill.errors import MissingTeacherError, UnsupportedModelError
from hf_distill.heads import SingleLabelHead
from hf_distill.teachers import CompositeTeacher, EnsembleTeacher, RoutedTeacher, online_teachers, single_teachers
from hf_distill.types import Requirements, Signals
from tests.test_comparable import ORDER, named, with_classes
from tests.tiny_detection_trainers import detection_trainer
from tests.tiny_detectors import detector
from tests.tiny_models import PaddingCollator, model_for, rows_for
from tests.tiny_trainers import loss_logs, trainer_for


class Own(Teacher):
    """A teacher of somebody's own, which holds something that cannot be copied."""

    input_names = frozenset({"own_column"})

    def __init__(self):
        self.lock = threading.Lock()
        self.student = self.accelerator = None

    def meet(self, student, head):
        self.student = student

    def prepare(self, accelerator):
        self.accelerator = accelerator

    def signals(self, batch):
        return Signals(batch["input_ids"].sum(1, keepdim=True) * torch.tensor([[0.1, 0.2, 0.3]]))


def test_what_it_is_made_of_in_order_at_any_depth():
    model = model_for("single_label", 2)
    own, online = Own(), OnlineTeacher(model, head_of(model))
    inner = RoutedTeacher({0: online, 1: own}, "language")
    teacher = EnsembleTeacher([inner, online])
    assert single_teachers(teacher) == [online, own, online]
    assert online_teachers(teacher) == [online]
    assert single_teachers(own) == [own]
    assert online_teachers(own) == online_teachers(None) == single_teachers(None) == []
    assert teacher.input_names == online.input_names | {"own_column", "language"}


def test_everything_becomes_a_teacher_and_meets_the_student(tmp_path):
    model, saved, own = model_for("single_label", 2), model_for("single_label", 3), Own()
    saved.save_pretrained(tmp_path / "saved")
    teacher = EnsembleTeacher([EnsembleTeacher([model, tmp_path / "saved"]), own])
    trainer = trainer_for(tmp_path, teacher=teacher)
    assert own.student is trainer.model
    assert own.accelerator is trainer.accelerator
    first, second = online_teachers(teacher)
    assert first.model is model
    assert torch.equal(second.model.classifier.weight, saved.classifier.weight)
    assert (first.may_download, second.may_download) == (False, True)
    assert type(first.head) is type(second.head) is SingleLabelHead
    trainer.train()
    assert loss_logs(trainer)[-1]["loss/soft"] > 0


def test_is_tried_with_a_member_that_cannot_be_copied(tmp_path):
    trainer = trainer_for(tmp_path, teacher=[model_for("single_label", 2), Own()])
    report = check_invariances(trainer)
    assert all(check.held for check in report.checks), str(report)


def test_no_member_is_the_student(tmp_path):
    student = model_for("single_label", 1)
    nested = EnsembleTeacher([model_for("single_label", 2), RoutedTeacher({"de": student}, "language")])
    with pytest.raises(MissingTeacherError, match="are the same BertForSequenceClassification object"):
        trainer_for(tmp_path, student=student, teacher=nested)


def test_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        CompositeTeacher(["a"])


def test_what_several_cannot_teach(tmp_path):
    detectors = [detector("detr", seed) for seed in (2, 3)]
    with pytest.raises(UnsupportedModelError, match="is a detector, and the teacher, a EnsembleTeacher"):
        detection_trainer(tmp_path, detector("detr"), detectors, "detr", alpha=0.5, max_steps=1)
    layers = Objective({"hidden": (1.0, HiddenStateTerm())})
    with pytest.raises(MissingTeacherError, match="the teacher is a EnsembleTeacher, which has none"):
        trainer_for(tmp_path, teacher=[model_for("single_label", n) for n in (2, 3)], objective=layers)


def test_a_member_answers_every_trainer_on_the_classes_of_its_student(tmp_path):
    """Also one that is a member of two teachers, or is asked alone afterwards."""
    first, second = (named(model_for("single_label", layers)) for layers in (2, 3))
    teachers = [OnlineTeacher(with_classes(first, ORDER), head_of(first)), second]
    students = [named(model_for("single_label", 1)), with_classes(named(model_for("single_label", 1)), ORDER)]
    several = [trainer_for(tmp_path, student=student, teacher=teachers) for student in students]
    alone = trainer_for(tmp_path, student=students[0], teacher=teachers[0])
    batch = PaddingCollator()(rows_for("single_label"))
    with torch.no_grad():
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        own = first(**inputs).logits
        mean = ((own.softmax(-1) + second(**inputs).logits.softmax(-1)) / 2).log()
    for trainer, expected in ((several[0], mean), (several[1], mean[:, ORDER]), (alone, own), (several[0], mean)):
        said = trainer._compare(trainer.model, batch, Requirements(teacher=True))[1]
        torch.testing.assert_close(said.logits.log_softmax(-1), expected.log_softmax(-1))

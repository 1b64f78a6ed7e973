"""Heads that find objects: what they read of each architecture, and what they refuse."""

import pytest
import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES

from hf_distill.errors import ClassMismatchError, UnsupportedModelError
from hf_distill.heads import FocalObjectDetectionHead, ObjectDetectionHead, head_of
from hf_distill.heads.detection import FOCAL_MODELS, NO_OBJECT_MODELS
from hf_distill.types import Unit
from tests.tiny_detectors import (
    DENOISING,
    FOCAL,
    GROUPED,
    NO_OBJECT,
    NUM_QUERIES,
    ImageCollator,
    detector,
    images_with_objects,
)
from tests.tiny_trainers import trainer_for


@pytest.mark.parametrize("kind", NO_OBJECT + FOCAL)
@pytest.mark.parametrize("training", [True, False])
def test_reads_the_queries_that_stay_after_training(kind, training):
    model, batch = detector(kind).train(training), ImageCollator(kind)(images_with_objects())
    head = head_of(model)
    assert type(head) is (ObjectDetectionHead if kind in NO_OBJECT else FocalObjectDetectionHead)
    outputs = model(**batch)
    signals = head.signals(outputs, batch)
    assert signals.boxes.shape == (4, NUM_QUERIES, 4)
    assert signals.logits.shape == (4, NUM_QUERIES, 4) if kind in NO_OBJECT else (4, NUM_QUERIES, 3, 2)
    assert torch.equal(signals.label_loss, outputs.loss)
    more = outputs.logits.shape[1] > NUM_QUERIES
    assert more == (training and kind in DENOISING + GROUPED)


@pytest.mark.parametrize("kind", DENOISING + GROUPED)
def test_queries_of_training_alone_are_not_among_them(kind):
    """What is kept says the same as the queries of a model that has no others."""
    model, batch = detector(kind).train(), ImageCollator(kind)(images_with_objects())
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    trained = head_of(model).signals(model(**batch), batch)
    if kind in DENOISING:
        model.config.num_denoising = 0
    else:
        model.eval()
    plain = head_of(model).signals(model(**batch), batch)
    assert torch.allclose(trained.logits, plain.logits, atol=1e-5)
    assert torch.allclose(trained.boxes, plain.boxes, atol=1e-5)


def test_a_yes_or_no_is_a_pair():
    batch = ImageCollator("conditional_detr")(images_with_objects())
    outputs = detector("conditional_detr").eval()(**batch)
    logits = FocalObjectDetectionHead().logits(outputs, batch)
    assert torch.allclose(logits.softmax(-1)[..., 0], outputs.logits.sigmoid())


def test_a_position_is_an_image_and_a_micro_batch_is_a_label():
    batch = ImageCollator("detr")(images_with_objects())
    where = ObjectDetectionHead().positions(batch)
    assert where.mask.tolist() == [True] * 4
    assert where.counts.items() >= {Unit.LABEL: 1, Unit.POSITION: 4}.items()
    del batch["labels"]
    assert ObjectDetectionHead().positions(batch).counts.items() >= {Unit.LABEL: 0, Unit.POSITION: 4}.items()


def test_the_two_kinds_are_all_that_transformers_trains():
    """The PP models raise an error where they get labels, or take none."""
    refused = sorted(set(MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES) - {*NO_OBJECT_MODELS, *FOCAL_MODELS})
    assert all(name.startswith(("pp_doclayout", "pp_ocr")) for name in refused), refused


def test_a_detector_that_is_not_known():
    model = detector("detr")
    model.config.model_type = "new_detr"
    with pytest.raises(UnsupportedModelError, match="model_type 'new_detr', and these detectors are known: detr,"):
        head_of(model)


def test_the_two_kinds_are_not_compared(tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"says yes or no to each class\. Take a teacher of the student's"):
        trainer_for(tmp_path, student=detector("detr"), teacher=detector("conditional_detr"))


def test_another_number_of_classes(tmp_path):
    with pytest.raises(ClassMismatchError, match="the student has 3 classes and the teacher 5"):
        trainer_for(tmp_path, student=detector("detr"), teacher=detector("detr", num_labels=5))

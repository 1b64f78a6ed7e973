"""Heads that choose a class for each pixel."""

import pytest
import torch
from transformers import SwinConfig, UperNetConfig, UperNetForSemanticSegmentation

from hf_distill.errors import ConfigurationError, UnsupportedModelError
from hf_distill.heads import SemanticSegmentationHead, head_of
from hf_distill.types import Unit
from tests.tiny_models import model_for, rows_for, segformer
from tests.tiny_trainers import loss_logs, trainer_for


LABELS = torch.tensor([[[0, 255], [-100, 2]]])


def test_counts_what_the_configuration_does_not_ignore():
    where = SemanticSegmentationHead().positions({"pixel_values": torch.zeros(1, 3, 4, 4), "labels": LABELS})
    assert where.mask.tolist() == [[[True, False], [True, True]]]
    assert where.counts.items() >= {Unit.LABEL: 3, Unit.POSITION: 3}.items()
    head = head_of(segformer(semantic_loss_ignore_index=-100))
    assert head.mask({"labels": LABELS}).tolist() == [[[True, True], [False, True]]]


def test_scores_have_the_resolution_of_the_labels_or_else_of_the_image():
    outputs = {"logits": torch.randn(1, 5, 2, 2)}
    batch = {"pixel_values": torch.zeros(1, 3, 8, 6)}
    head = SemanticSegmentationHead()
    assert head.logits(outputs, batch).shape == (1, 8, 6, 5)
    assert head.mask(batch).shape == (1, 8, 6) and head.mask(batch).all()
    same = head.logits(outputs, {**batch, "labels": LABELS})
    assert torch.equal(same[0, 1, 0], outputs["logits"][0, :, 1, 0])


def test_own_loss_is_the_mean_over_the_pixels_counted():
    model, rows = model_for("pixels", 1).eval(), rows_for("pixels")
    batch = {name: torch.stack([row[name] for row in rows[:2]]).float() for name in rows[0]}
    batch["labels"] = batch["labels"].long()
    head = head_of(model)
    outputs = model(**batch)
    scores = head.logits(outputs, batch).log_softmax(-1)
    losses = [-scores[(*at, batch["labels"][tuple(at)])] for at in (batch["labels"] != 255).nonzero().tolist()]
    assert torch.allclose(head.label_loss(outputs, batch), sum(losses))


def test_one_class_is_refused():
    with pytest.raises(UnsupportedModelError, match=r"SegformerForSemanticSegmentation has num_labels=1"):
        head_of(segformer(num_labels=1))


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_the_student_moves_and_the_teacher_does_not(tmp_path, alpha):
    """The teacher's own resolution is half of the student's."""
    rows = [{**row, "pixel_values": row["pixel_values"].float()} for row in rows_for("pixels")]
    if alpha == 0:
        rows = [{"pixel_values": row["pixel_values"]} for row in rows]
    trainer = trainer_for(tmp_path, "pixels", teacher=segformer(2, strides=[4]), rows=rows, alpha=alpha, max_steps=12)
    student, teacher = (
        [parameter.detach().clone() for parameter in model.parameters()]
        for model in (trainer.model, trainer.teacher.model)
    )
    trainer.train()
    assert not all(map(torch.equal, trainer.model.parameters(), student))
    assert all(map(torch.equal, trainer.teacher.model.parameters(), teacher))
    losses = [log["loss"] for log in loss_logs(trainer)]
    assert losses[-2] + losses[-1] < losses[0] + losses[1]


def test_labels_that_name_no_class(tmp_path):
    """Counted from 1 on, as where `do_reduce_labels` was forgotten."""
    rows = [{**row, "labels": torch.where(row["labels"] == 255, 255, row["labels"] + 1)} for row in rows_for("pixels")]
    with pytest.raises(ConfigurationError, match=r"`labels` holds \[3\], and the student has num_labels=3.*with 255"):
        trainer_for(tmp_path, "pixels", rows=rows).train()


def test_upernet_has_a_name_of_its_own_for_what_it_ignores():
    sizes = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 1], "window_size": 2, "image_size": 16}
    backbone = SwinConfig(**sizes, out_features=["stage1", "stage2"])
    options = {"hidden_size": 8, "num_labels": 3, "pool_scales": [1], "use_auxiliary_head": False}
    model = UperNetForSemanticSegmentation(
        UperNetConfig(backbone_config=backbone, **options, loss_ignore_index=0)
    ).eval()
    torch.manual_seed(0)
    batch = {"pixel_values": torch.randn(2, 3, 16, 16), "labels": torch.randint(0, 3, (2, 16, 16))}
    head, outputs = head_of(model), model(**batch)
    counted = batch["labels"] != 0
    scores = head.logits(outputs, batch).log_softmax(-1)[counted]
    expected = -scores[range(len(scores)), batch["labels"][counted]].sum()
    assert torch.allclose(head.label_loss(outputs, batch), expected, rtol=1e-4)
    assert torch.equal(head.mask(batch), counted)

"""Distances of boxes against their definition, one pair at a time."""

import pytest
import torch
from transformers.image_transforms import center_to_corners_format
from transformers.loss.loss_for_object_detection import generalized_box_iou

from hf_distill.errors import ConfigurationError
from hf_distill.functional import generalized_iou
from tests.detection_reference import giou


def boxes(number, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    centres, sizes = torch.rand(2, number, 2, generator=generator, dtype=torch.float64)
    return torch.cat((centres, 0.05 + 0.6 * sizes), dim=1).to(dtype)


def test_equals_the_definition():
    ours, theirs = boxes(20), boxes(20, seed=1)
    values = generalized_iou(ours, theirs)
    for mine, yours, value in zip(ours.tolist(), theirs.tolist(), values.tolist(), strict=True):
        assert value == pytest.approx(giou(mine, yours), rel=1e-12)
    assert values.min() < 0 < values.max()


@pytest.mark.parametrize(
    ("ours", "theirs", "value"),
    [
        ([0.5, 0.5, 0.2, 0.4], [0.5, 0.5, 0.2, 0.4], 1.0),
        ([0.5, 0.5, 0.4, 0.4], [0.5, 0.5, 0.2, 0.2], 0.25),
        ([0.1, 0.1, 0.2, 0.2], [0.9, 0.9, 0.2, 0.2], -0.92),
        ([0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], 0.0),
    ],
)
def test_known_values(ours, theirs, value):
    assert generalized_iou(torch.tensor(ours), torch.tensor(theirs)).item() == pytest.approx(value, abs=1e-5)


def test_every_pair_equals_transformers():
    ours, theirs = boxes(5), boxes(7, seed=1)
    expected = generalized_box_iou(center_to_corners_format(ours), center_to_corners_format(theirs))
    assert torch.allclose(generalized_iou(ours[:, None], theirs), expected, rtol=1e-12)


def test_gradient():
    ours, theirs = boxes(6).requires_grad_(), boxes(6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(generalized_iou, (ours, theirs))


def test_boxes_without_area_have_a_finite_gradient():
    ours = torch.zeros(2, 4, requires_grad=True)
    generalized_iou(ours, torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.1, 0.1]])).sum().backward()
    assert ours.grad.isfinite().all()


def test_half_precision_is_computed_in_float32():
    ours, theirs = boxes(20, dtype=torch.bfloat16), boxes(20, seed=1, dtype=torch.bfloat16)
    assert torch.equal(generalized_iou(ours, theirs), generalized_iou(ours.float(), theirs.float()))


def test_compiles_without_a_graph_break():
    compiled = torch.compile(generalized_iou, backend="eager", fullgraph=True)
    assert torch.equal(compiled(boxes(3), boxes(3, seed=1)), generalized_iou(boxes(3), boxes(3, seed=1)))


def test_boxes_of_three_numbers():
    with pytest.raises(ConfigurationError, match=r"shape \(2, 3\) and teacher_boxes \(2, 4\)\. Pass boxes of four"):
        generalized_iou(torch.zeros(2, 3), torch.zeros(2, 4))

"""Blocks are found in every model, and told apart by their side."""

import pytest
from torch import nn

from hf_distill.errors import UnsupportedModelError
from hf_distill.feature_reading import anatomy_of
from hf_distill.types import StackShape
from tests.architectures import ENCODER_DECODERS, TASKS, model_of
from tests.tiny_models import segformer


@pytest.mark.parametrize("architecture", TASKS)
def test_depth_width_and_heads(architecture):
    anatomy = anatomy_of(model_of(architecture, layers=3, width=24))
    sides = ("encoder", "decoder") if architecture in ENCODER_DECODERS else (None,)
    assert [anatomy.stack(side) for side in sides] == [StackShape(3, 24, 2, 24)] * len(sides)


def test_a_side_is_named_where_there_are_two():
    anatomy = anatomy_of(model_of("t5", 1))
    for side in (None, "middle"):
        with pytest.raises(UnsupportedModelError, match=rf"stacks \['decoder', 'encoder'\], and side={side!r} names"):
            anatomy.stack(side)


def test_a_model_without_blocks():
    with pytest.raises(UnsupportedModelError, match="Linear has no list of blocks with attention"):
        anatomy_of(nn.Linear(2, 2))


def test_a_model_whose_width_changes_on_the_way():
    with pytest.raises(UnsupportedModelError, match="no part of SegformerForSemanticSegmentation around its blocks"):
        anatomy_of(segformer())

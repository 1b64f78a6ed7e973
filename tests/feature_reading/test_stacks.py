"""Blocks are found in every model, and told apart by their side."""

import pytest
import torch
from torch import nn
from transformers import (
    Lfm2Config,
    Lfm2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    SqueezeBertConfig,
    SqueezeBertModel,
)

from hf_distill.errors import UnsupportedModelError
from hf_distill.feature_reading import FeatureReader, anatomy_of
from hf_distill.types import Feature, StackShape
from tests.architectures import ENCODER_DECODERS, TASKS, model_of
from tests.tiny_models import VOCAB_SIZE, segformer


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


MIXED = {"hidden_size": 16, "vocab_size": VOCAB_SIZE, "num_hidden_layers": 2}


def mixed_model():
    """A block without attention, and one with it."""
    sizes = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24}
    return Lfm2ForCausalLM(Lfm2Config(**MIXED, **sizes, layer_types=["conv", "full_attention"]))


def test_blocks_some_or_none_of_which_attend():
    state_space = MambaForCausalLM(MambaConfig(**MIXED, state_size=4))
    for model in (state_space, mixed_model()):
        assert anatomy_of(model).stack(None) == StackShape(2, 16)
        states = FeatureReader(model, {Feature("hidden_states", 1)})
        states.attach()
        _, features = states.call(model, {"input_ids": torch.arange(3, 8)[None]}, {})
        states.remove()
        expected = model(input_ids=torch.arange(3, 8)[None], output_hidden_states=True).hidden_states[1]
        assert torch.equal(features[Feature("hidden_states", 1)], expected)
        with pytest.raises(UnsupportedModelError, match="has 0 self-attentions"):
            FeatureReader(model, {Feature("queries", 1)})


def test_hidden_states_need_no_projections_that_are_known():
    """SqueezeBERT projects by convolutions, which says nothing of what lies between its blocks."""
    sizes = {"hidden_size": 16, "embedding_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = SqueezeBertModel(SqueezeBertConfig(**sizes, intermediate_size=32, vocab_size=VOCAB_SIZE)).eval()
    assert anatomy_of(model).stack(None) == StackShape(2, 16)
    reader = FeatureReader(model, [Feature("hidden_states", 1)])
    reader.attach()
    _, found = reader.call(model, {"input_ids": torch.full((2, 3), 3)}, {})
    assert found[Feature("hidden_states", 1)].shape == (2, 3, 16)
    with pytest.raises(UnsupportedModelError, match=r"SqueezeBertSelfAttention give None numbers .* patient_kd"):
        FeatureReader(model, [Feature("queries", 1)])


def test_a_model_without_blocks():
    with pytest.raises(UnsupportedModelError, match="Linear has no list of blocks with attention"):
        anatomy_of(nn.Linear(2, 2))


def test_a_model_whose_width_changes_on_the_way():
    with pytest.raises(UnsupportedModelError, match="no part of SegformerForSemanticSegmentation around its blocks"):
        anatomy_of(segformer())

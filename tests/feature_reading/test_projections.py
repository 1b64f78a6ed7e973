"""Which maps make queries, keys and values, and how their outputs fall into heads."""

import pytest
import torch
from torch import nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    CodeGenConfig,
    CodeGenForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    SwinConfig,
    SwinForImageClassification,
)

from hf_distill.errors import UnsupportedModelError
from hf_distill.feature_reading import anatomy_of
from hf_distill.feature_reading.projections import projections_of, self_attentions
from hf_distill.feature_reading.stacks import stacks_of
from hf_distill.types import StackShape
from tests.architectures import model_of
from tests.tiny_models import SIZES


class Attention(nn.Module):
    def __init__(self, **widths):
        super().__init__()
        self.head_dim = 4
        for name, width in widths.items():
            setattr(self, name, nn.Linear(8, width))


def test_shared_keys_are_repeated_for_each_head():
    projections = projections_of(Attention(q_proj=16, k_proj=8, v_proj=8), None)
    keys = torch.arange(16.0).view(1, 2, 8)
    heads = projections.kinds_of(1, keys)["keys"]
    assert heads.shape == (1, 4, 2, 4)
    for head, group in enumerate((0, 0, 1, 1)):
        assert torch.equal(heads[0, head], keys[0, :, 4 * group : 4 * group + 4])


def test_a_fused_map_with_shared_keys_is_split_where_the_model_splits_it():
    """Phi-3 gives all queries, then the fewer keys, then as many values."""
    config = Phi3Config(**SIZES, num_hidden_layers=1, num_key_value_heads=1, pad_token_id=0)
    model = Phi3ForCausalLM(config).eval()
    stack = stacks_of(model)[""]
    projections = stack.projections(1)
    output = torch.arange(2 * 3 * 32.0).view(2, 3, 32)
    found = projections.kinds_of(0, output)
    assert torch.equal(found["queries"][:, 1], output[..., 8:16])
    for head in range(2):
        assert torch.equal(found["keys"][:, head], output[..., 16:24])
        assert torch.equal(found["values"][:, head], output[..., 24:])


def test_a_layout_that_is_not_known_is_not_guessed():
    """BLOOM's one map gives query, key and value of the first head, then of the next. Its hidden states are read."""
    model = BloomForCausalLM(BloomConfig(vocab_size=40, hidden_size=16, n_layer=3, n_head=2))
    assert anatomy_of(model).stack(None) == StackShape(3, 16)
    with pytest.raises(UnsupportedModelError, match="block BloomBlock has 0 self-attentions whose queries"):
        stacks_of(model)[""].projections(1)


def test_the_same_name_may_mean_another_layout():
    """CodeGen's `qkv_proj` gives queries, values and keys, in four groups."""
    model = CodeGenForCausalLM(CodeGenConfig(vocab_size=40, n_embd=32, n_layer=1, n_head=4, rotary_dim=4))
    assert list(self_attentions(stacks_of(model)[""].blocks[0])) == []


def test_a_stage_of_blocks_is_no_block():
    """Swin's attention reads windows, of which there are more than rows."""
    sizes = {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]}
    stack = stacks_of(SwinForImageClassification(SwinConfig(**sizes, window_size=2)))[""]
    assert stack.shape == StackShape(2, 16)
    with pytest.raises(UnsupportedModelError, match="block SwinStage has 0 self-attentions whose"):
        stack.projections(1)


def test_cross_attention_is_left_out():
    model = model_of("bart", 1)
    block = model.model.decoder.layers[0]
    assert list(self_attentions(block)) == [block.self_attn]


def test_a_block_with_two_self_attentions():
    block = nn.ModuleDict({name: Attention(q=8, k=8, v=8) for name in ("one", "other")})
    with pytest.raises(UnsupportedModelError, match="block ModuleDict has 2 self-attentions whose"):
        projections_of(block, None)


def test_projections_that_do_not_fall_into_heads():
    with pytest.raises(UnsupportedModelError, match="give 6 numbers a token, and its heads have the size 4"):
        projections_of(Attention(q=6, k=6, v=6), None)

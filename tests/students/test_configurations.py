"""What a configuration says of layers goes with them, and what is saved is what was meant."""

import pytest
from transformers import (
    BertConfig,
    Dinov2Config,
    EncoderDecoderConfig,
    LEDConfig,
    Llama4TextConfig,
    LlamaConfig,
    Qwen2MoeConfig,
)

from hf_distill.errors import UnsupportedModelError
from hf_distill.students.configurations import reloaded, sub_configs, with_layers
from tests.students import teachers
from tests.students.teachers import TEACHERS


def test_each_part_keeps_its_way_of_attention():
    config = EncoderDecoderConfig.from_encoder_decoder_configs(BertConfig(num_hidden_layers=3), BertConfig())
    config._attn_implementation = {"": "sdpa", "encoder": "eager", "decoder": "sdpa"}
    again = reloaded(config)
    assert [part._attn_implementation for _, part in sub_configs(again)] == ["sdpa", "eager", "sdpa"]
    assert again.to_dict() == config.to_dict()
    assert again.encoder is not config.encoder


def test_a_configuration_that_would_not_load_is_refused():
    config = LlamaConfig(hidden_size=16, num_attention_heads=4)
    config.num_attention_heads = 3
    with pytest.raises(UnsupportedModelError, match=r"the LlamaConfig of this student cannot be saved and loaded:"):
        reloaded(config)


def test_parts_are_found_by_their_paths():
    config = TEACHERS["clip"](3).config
    assert dict(sub_configs(config)) == {
        (): config,
        ("text_config",): config.text_config,
        ("vision_config",): config.vision_config,
    }


def test_what_is_said_of_each_layer_goes_with_it():
    config = teachers.modernbert(4).config
    shorter = with_layers(config, (), "num_hidden_layers", (0, 3))
    assert (shorter.num_hidden_layers, shorter.layer_types) == (2, ["full_attention", "full_attention"])
    assert config.num_hidden_layers == len(config.layer_types) == 4
    clip = with_layers(TEACHERS["clip"](3).config, ("vision_config",), "num_hidden_layers", (0, 4))
    assert (clip.text_config.num_hidden_layers, clip.vision_config.num_hidden_layers) == (3, 2)


def test_numbers_of_layers_go_with_them():
    """Llama 4 names the layers with experts, and says of each layer whether it has rotary positions."""
    names = {"moe_layers": [0, 1, 2, 3], "no_rope_layers": [1, 1, 1, 0]}
    config = Llama4TextConfig(num_hidden_layers=4, layer_types=["full_attention"] * 4, **names)
    shorter = with_layers(config, (), "num_hidden_layers", (0, 3))
    assert (shorter.moe_layers, shorter.no_rope_layers) == ([0, 1], [1, 0])
    mixed = Qwen2MoeConfig(num_hidden_layers=4, mlp_only_layers=[0, 2, 3])
    assert with_layers(mixed, (), "num_hidden_layers", (1, 2)).mlp_only_layers == [1]


def test_lists_of_the_encoder_are_not_the_decoders():
    config = LEDConfig(encoder_layers=4, decoder_layers=4, attention_window=[2, 4, 6, 8])
    assert with_layers(config, (), "decoder_layers", (0, 3)).attention_window == [2, 4, 6, 8]
    assert with_layers(config, (), "encoder_layers", (0, 3)).attention_window == [2, 8]


def test_a_backbone_hands_out_the_same_layers():
    config = Dinov2Config(num_hidden_layers=4, out_indices=[0, 2, 4])
    shorter = with_layers(config, (), "num_hidden_layers", (1, 2))
    assert (shorter.stage_names, shorter.out_indices) == (["stem", "stage1", "stage2"], [0, 1, 2])
    with pytest.raises(UnsupportedModelError, match=r"out_indices=\[0, 2, 4\], and the layers \[1\] .* \[0, 3\]"):
        with_layers(config, (), "num_hidden_layers", (0, 3))

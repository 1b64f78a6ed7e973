"""The configuration: what it keeps, and what it refuses."""

import json

import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError
from transformers import AutoConfig, PreTrainedConfig

from hf_distill.models.encoder_lm import EncoderLMConfig, EncoderLMForCausalLM, EncoderLMForMaskedLM
from tests.models.encoder_lm.tiny_encoders import tiny_config


CHANGED = {
    "vocab_size": 70,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "intermediate_size": 30,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.25,
    "attention_probs_dropout_prob": 0.5,
    "max_position_embeddings": 40,
    "position_embedding_type": "rotary",
    "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0},
    "pre_norm": True,
    "layer_norm_eps": 1e-6,
    "initializer_range": 0.5,
    "tie_word_embeddings": False,
    "classifier_dropout": 0.75,
    "classifier_pooling": "mean",
    "is_decoder": True,
    "use_cache": False,
    "pad_token_id": 3,
    "bos_token_id": 4,
    "eos_token_id": [5, 6],
}


def test_every_field_differs_from_its_default():
    own = {name: field.default for name, field in EncoderLMConfig.__dataclass_fields__.items()}
    assert CHANGED.keys() == own.keys() - PreTrainedConfig.__dataclass_fields__.keys()
    assert all(own[name] != value for name, value in CHANGED.items())


def test_survives_saving(tmp_path):
    config = EncoderLMConfig(**CHANGED, num_labels=5)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is EncoderLMConfig
    assert {name: getattr(loaded, name) for name in CHANGED} == CHANGED
    assert loaded.num_labels == 5
    assert loaded.to_diff_dict() == config.to_diff_dict()
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "encoder_lm"


def test_defaults_are_those_of_the_paper():
    config = EncoderLMConfig()
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (512, 6, 8)
    assert (config.intermediate_size, config.hidden_act, config.hidden_dropout_prob) == (2048, "relu", 0.1)
    assert (config.position_embedding_type, config.pre_norm, config.tie_word_embeddings) == ("sinusoidal", False, True)


def test_rotary_parameters_are_filled_in_for_rotary_positions_only():
    assert EncoderLMConfig().rope_parameters is None
    filled = EncoderLMConfig(position_embedding_type="rotary").rope_parameters
    assert filled == {"rope_type": "default", "rope_theta": 10000.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 30}, "hidden_size=30 and num_attention_heads=4 do not fit"),
        (
            {"hidden_size": 12, "position_embedding_type": "rotary"},
            "hidden_size=12 and num_attention_heads=4 give heads of width 3, and rotary positions need an even one",
        ),
        ({"hidden_size": 9, "num_attention_heads": 3}, "hidden_size=9 is odd, and sinusoidal positions need an even"),
        ({"vocab_size": 0}, "vocab_size=0 is not positive"),
        ({"num_hidden_layers": -1}, "num_hidden_layers=-1 is not positive"),
        ({"num_attention_heads": 0}, "num_attention_heads=0 is not positive"),
        ({"hidden_dropout_prob": 1.5}, r"hidden_dropout_prob=1.5 is not a probability in \[0, 1\]"),
        ({"classifier_dropout": -0.1}, r"classifier_dropout=-0.1 is not a probability in \[0, 1\]"),
        ({"hidden_act": "rely"}, r"hidden_act='rely' is none of \['gelu', .*'relu', "),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}},
            "rope_parameters={.*7.0.*} need position_embedding_type='rotary', which is 'sinusoidal'",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_refuses(options, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        tiny_config(**options)


def test_names_all_faults_at_once():
    with pytest.raises(StrictDataclassClassValidationError) as caught:
        tiny_config(hidden_size=30, hidden_act="rely", attention_probs_dropout_prob=2)
    for fault in ("hidden_size=30", "hidden_act='rely'", "attention_probs_dropout_prob=2"):
        assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"position_embedding_type": "absolute"}, "one of .*'sinusoidal', 'learned', 'rotary'.*got absolute"),
        ({"classifier_pooling": "max"}, "one of .*'cls', 'mean'.*got max"),
        ({"pre_norm": "yes"}, "'pre_norm' expected bool, got str"),
    ],
)
def test_refuses_unknown_options(options, message):
    with pytest.raises(StrictDataclassFieldValidationError, match=message):
        tiny_config(**options)


@pytest.mark.parametrize(("model_class", "is_decoder"), [(EncoderLMForCausalLM, True), (EncoderLMForMaskedLM, False)])
def test_a_head_sets_causality_on_its_own_copy(model_class, is_decoder):
    config = tiny_config(is_decoder=not is_decoder)
    model = model_class(config)
    assert config.is_decoder is not is_decoder
    assert model.config.is_decoder is is_decoder
    assert model.model.config is model.config
    assert all(layer.self_attn.is_causal is is_decoder for layer in model.model.layers)
    fitting = tiny_config(is_decoder=is_decoder)
    assert model_class(fitting).config is fitting

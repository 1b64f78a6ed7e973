"""Weights of a new model."""

import math

import pytest
import torch
from transformers import AutoModelForMaskedLM, set_seed

from hf_distill.models.encoder_lm import (
    EncoderLMForCausalLM,
    EncoderLMForMaskedLM,
    EncoderLMForSequenceClassification,
    EncoderLMForTokenClassification,
    EncoderLMModel,
)
from tests.models.encoder_lm.tiny_encoders import (
    HEADS,
    LANGUAGE_MODELS,
    POSITIONS,
    random_tokens,
    tiny,
    tiny_config,
)


@pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])
@pytest.mark.parametrize("position_type", POSITIONS)
@pytest.mark.parametrize("model_class", HEADS)
def test_every_weight_is_initialised(model_class, position_type, pre_norm):
    """Weights of garbage, as on a device without data, become those of a new model; no buffer is left to chance."""
    config = tiny_config(
        position_embedding_type=position_type, pre_norm=pre_norm, initializer_range=0.1, hidden_size=64
    )
    model = model_class(config)
    new = {name: tensor.clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.fill_(777.0)
    for module in model.modules():
        module._is_hf_initialized = False
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor._is_hf_initialized = False
    model.init_weights()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if "norm" in name:
            assert (tensor == (1.0 if name.endswith("weight") else 0.0)).all(), name
        elif name.endswith("bias"):
            assert (tensor == 0.0).all(), name
        elif name.endswith("inv_freq"):
            assert torch.equal(tensor, new[name]), name
        else:
            assert abs(tensor.mean()) < 0.03, name
            assert 0.07 < tensor.std() < 0.13, name


@pytest.mark.parametrize("model_class", HEADS)
def test_one_seed_gives_one_model(model_class):
    weights = []
    for seed in (1, 1, 2):
        set_seed(seed)
        weights.append(model_class(tiny_config()).state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["model.embed_tokens.weight"], weights[2]["model.embed_tokens.weight"])


@pytest.mark.parametrize("tie_word_embeddings", [False, True], ids=["separate", "tied"])
@pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])
@pytest.mark.parametrize("model_class", LANGUAGE_MODELS)
def test_a_new_language_model_knows_nothing(model_class, pre_norm, tie_word_embeddings):
    """Its loss is that of a guess, log V, although embeddings are scaled up and a tied decoder reads them again."""
    config = tiny_config(
        vocab_size=4000,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        pre_norm=pre_norm,
        tie_word_embeddings=tie_word_embeddings,
    )
    tokens = torch.randint(0, 4000, (4, 32))
    masked = tokens.clone()
    masked[:, ::5] = 4
    labels = torch.where(masked == tokens, -100, tokens) if model_class is EncoderLMForMaskedLM else tokens
    with torch.no_grad():
        loss = model_class(config).eval()(masked, labels=labels).loss
    assert abs(loss - math.log(4000)) < 0.25


@pytest.mark.parametrize("model_class", [EncoderLMForSequenceClassification, EncoderLMForTokenClassification])
def test_a_head_that_is_not_in_the_files_is_new(model_class, tmp_path):
    base = tiny(EncoderLMModel)
    base.save_pretrained(tmp_path)
    set_seed(1)
    loaded, report = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert set(report["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    assert not report["unexpected_keys"]
    assert (loaded.classifier.bias == 0).all()
    assert 0.01 < loaded.classifier.weight.std() < 0.03
    for name, weight in base.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], weight)


def test_a_separate_decoder_that_is_not_in_the_files_is_new(tmp_path):
    tiny(EncoderLMModel, tie_word_embeddings=False).save_pretrained(tmp_path)
    loaded, report = AutoModelForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert set(report["missing_keys"]) == {"lm_head.weight", "lm_head.bias"}
    assert 0.01 < loaded.lm_head.weight.std() < 0.03


@pytest.mark.parametrize("position_type", POSITIONS)
def test_positions_are_right_after_loading(position_type, tmp_path):
    """Loading builds a model without data, where a buffer that is not saved would be lost."""
    model = tiny(EncoderLMForCausalLM, position_embedding_type=position_type)
    model.save_pretrained(tmp_path)
    loaded = EncoderLMForCausalLM.from_pretrained(tmp_path).eval()
    tokens = random_tokens(2, 9)
    assert torch.equal(model(tokens).logits, loaded(tokens).logits)

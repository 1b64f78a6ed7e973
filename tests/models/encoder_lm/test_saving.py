"""Files, tied weights, new vocabularies, copies, and the Auto classes."""

import copy
import pickle

import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTextEncoding,
    AutoModelForTokenClassification,
)

import hf_distill.models
from hf_distill.models.encoder_lm import (
    EncoderLMConfig,
    EncoderLMForCausalLM,
    EncoderLMForMaskedLM,
    EncoderLMForQuestionAnswering,
    EncoderLMForSequenceClassification,
    EncoderLMForTokenClassification,
    EncoderLMModel,
)
from tests.models.encoder_lm.tiny_encoders import (
    HEADS,
    LANGUAGE_MODELS,
    POSITIONS,
    VOCAB_SIZE,
    output,
    random_tokens,
    tiny,
    tiny_config,
)


AUTO_CLASSES = [
    (AutoModel, EncoderLMModel),
    (AutoModelForTextEncoding, EncoderLMModel),
    (AutoModelForPreTraining, EncoderLMForMaskedLM),
    (AutoModelForMaskedLM, EncoderLMForMaskedLM),
    (AutoModelForCausalLM, EncoderLMForCausalLM),
    (AutoModelForSequenceClassification, EncoderLMForSequenceClassification),
    (AutoModelForTokenClassification, EncoderLMForTokenClassification),
    (AutoModelForQuestionAnswering, EncoderLMForQuestionAnswering),
]


def saved_names(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


@pytest.mark.parametrize("position_type", POSITIONS)
@pytest.mark.parametrize("model_class", [EncoderLMModel, *HEADS])
def test_a_saved_model_loads_bit_for_bit(model_class, position_type, tmp_path):
    model = tiny(model_class, position_embedding_type=position_type, pre_norm=True)
    model.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]
    loaded, report = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    weights = loaded.state_dict()
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    tokens = random_tokens(2, 5)
    assert torch.equal(output(model, input_ids=tokens), output(loaded, input_ids=tokens))
    assert not loaded.training


@pytest.mark.parametrize("model_class", LANGUAGE_MODELS)
def test_a_tied_decoder_is_the_embedding(model_class, tmp_path):
    model = tiny(model_class)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in saved_names(tmp_path)
    loaded = model_class.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    loaded.resize_token_embeddings(VOCAB_SIZE + 7)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    loaded(random_tokens(1, 4), labels=random_tokens(1, 4)).loss.backward()
    assert loaded.lm_head.weight.grad is loaded.model.embed_tokens.weight.grad


@pytest.mark.parametrize("model_class", LANGUAGE_MODELS)
def test_a_separate_decoder_is_saved_apart(model_class, tmp_path):
    model = tiny(model_class, tie_word_embeddings=False)
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    model.save_pretrained(tmp_path)
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= saved_names(tmp_path)
    loaded = model_class.from_pretrained(tmp_path)
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    assert loaded.lm_head.weight is not loaded.model.embed_tokens.weight


@pytest.mark.parametrize("tie_word_embeddings", [False, True], ids=["separate", "tied"])
@pytest.mark.parametrize("model_class", LANGUAGE_MODELS)
def test_new_vocabulary(model_class, tie_word_embeddings, tmp_path):
    model = tiny(model_class, tie_word_embeddings=tie_word_embeddings)
    tokens = random_tokens(2, 5) % (VOCAB_SIZE - 10)
    before = model(tokens).logits
    for size in (VOCAB_SIZE + 9, VOCAB_SIZE - 10):
        model.resize_token_embeddings(size)
        assert model.config.vocab_size == model.get_input_embeddings().num_embeddings == size
        assert model.lm_head.weight.shape[0] == model.lm_head.bias.shape[0] == size
        kept = min(size, VOCAB_SIZE)
        assert torch.allclose(model(tokens).logits[..., :kept], before[..., :kept], atol=1e-6)
        assert model(tokens, labels=tokens).loss.isfinite()
    model.save_pretrained(tmp_path)
    assert torch.equal(model_class.from_pretrained(tmp_path)(tokens).logits, model(tokens).logits)


def test_embeddings_are_where_transformers_looks():
    model = tiny(EncoderLMForMaskedLM)
    assert model.get_input_embeddings() is model.model.embed_tokens
    assert model.get_output_embeddings() is model.lm_head
    assert model.base_model is model.model
    new = torch.nn.Embedding(VOCAB_SIZE, 16)
    model.set_input_embeddings(new)
    assert model.model.embed_tokens is new
    assert tiny(EncoderLMForSequenceClassification).get_output_embeddings() is None


@pytest.mark.parametrize("model_class", [EncoderLMModel, *HEADS])
def test_copies_are_the_same_and_apart(model_class):
    model = tiny(model_class)
    tokens = random_tokens(2, 5)
    expected = output(model, input_ids=tokens)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(output(twin, input_ids=tokens), expected)
        with torch.no_grad():
            twin.get_input_embeddings().weight.add_(1.0)
        assert not torch.equal(output(twin, input_ids=tokens), expected)
    assert torch.equal(output(model, input_ids=tokens), expected)


def test_the_room_of_models_registers_them():
    assert hf_distill.models.encoder_lm.EncoderLMModel is EncoderLMModel
    assert type(AutoConfig.for_model("encoder_lm")) is EncoderLMConfig


@pytest.mark.parametrize(
    ("auto_class", "model_class"), AUTO_CLASSES, ids=[auto_class.__name__ for auto_class, _ in AUTO_CLASSES]
)
def test_auto_classes_know_the_models(auto_class, model_class, tmp_path):
    assert type(auto_class.from_config(tiny_config())) is model_class
    model = tiny(model_class)
    model.save_pretrained(tmp_path)
    loaded = auto_class.from_pretrained(tmp_path)
    assert type(loaded) is model_class
    tokens = random_tokens(1, 4)
    assert torch.equal(output(loaded, input_ids=tokens), output(model, input_ids=tokens))


def test_causality_is_saved(tmp_path):
    model = tiny(EncoderLMForCausalLM)
    model.save_pretrained(tmp_path)
    tokens = random_tokens(1, 6)
    hidden = model.model(tokens).last_hidden_state
    base = AutoModel.from_pretrained(tmp_path)
    assert base.config.is_decoder
    assert torch.equal(base(tokens).last_hidden_state, hidden)

    masked = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert not masked.config.is_decoder
    assert not torch.allclose(masked.model(tokens).last_hidden_state, hidden, atol=1e-2)
    masked.save_pretrained(tmp_path / "masked")
    assert not AutoConfig.from_pretrained(tmp_path / "masked").is_decoder

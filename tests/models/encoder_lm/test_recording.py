"""Hidden states and attention probabilities on request, and outputs as tuples."""

import pytest
import torch
import transformers
from packaging import version

from hf_distill.models.encoder_lm import EncoderLMForCausalLM, EncoderLMModel
from tests.models.encoder_lm.tiny_encoders import HEADS, output, padded, random_tokens, tiny


LAYERS = 3


@pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])
@pytest.mark.parametrize("model_class", [EncoderLMModel, *HEADS])
def test_hidden_states(model_class, pre_norm):
    model = tiny(model_class, pre_norm=pre_norm, num_hidden_layers=LAYERS)
    tokens = random_tokens(2, 5)
    assert model(tokens).hidden_states is None
    states = model(tokens, output_hidden_states=True).hidden_states
    assert [tuple(state.shape) for state in states] == [(2, 5, 16)] * (LAYERS + 1)
    base = model.base_model
    assert torch.equal(states[-1], base(tokens).last_hidden_state)
    embeddings = base._embed(base.embed_tokens(tokens), torch.arange(5)[None])
    assert torch.equal(states[0], embeddings)
    for index in range(LAYERS - 1):
        mask = base._mask(base.config.is_decoder, states[index], None, None, None)
        assert torch.equal(states[index + 1], base.layers[index](states[index], attention_mask=mask))


@pytest.mark.skipif(
    version.parse(transformers.__version__) < version.parse("5.21"), reason="Transformers 5.21 brought chosen layers"
)
def test_chosen_hidden_states():
    model = tiny(num_hidden_layers=LAYERS)
    tokens = random_tokens(2, 5)
    states = model(tokens, output_hidden_states=True).hidden_states
    chosen = model(tokens, output_hidden_states=[1, -1]).hidden_states
    assert chosen[0] is None and chosen[2] is None
    assert torch.equal(chosen[1], states[1]) and torch.equal(chosen[3], states[3])


@pytest.mark.parametrize("model_class", [EncoderLMModel, *HEADS])
def test_attention_probabilities(model_class):
    model = tiny(model_class, num_hidden_layers=LAYERS, attn_implementation="eager")
    batch = padded((6, 4))
    assert model(**batch).attentions is None
    maps = model(**batch, output_attentions=True).attentions
    assert [tuple(probabilities.shape) for probabilities in maps] == [(2, 4, 6, 6)] * LAYERS
    for probabilities in maps:
        assert torch.allclose(probabilities.sum(-1), torch.ones(2, 4, 6), atol=1e-6)
        assert (probabilities[1, :, :4, 4:] == 0).all()
        if model_class is EncoderLMForCausalLM:
            assert (probabilities.triu(1) == 0).all()
        else:
            assert (probabilities[0] > 0).all()


def test_attention_probabilities_with_a_cache():
    model = tiny(EncoderLMForCausalLM, attn_implementation="eager")
    tokens = random_tokens(1, 6)
    cache = model(tokens[:, :4]).past_key_values
    maps = model(tokens[:, 4:], past_key_values=cache, output_attentions=True).attentions
    assert [tuple(probabilities.shape) for probabilities in maps] == [(1, 4, 2, 6)] * 2


def test_a_configuration_may_ask():
    model = tiny(output_hidden_states=True, output_attentions=True, attn_implementation="eager")
    outputs = model(random_tokens(1, 3))
    assert len(outputs.hidden_states) == 3 and len(outputs.attentions) == 2


@pytest.mark.parametrize("model_class", [EncoderLMModel, *HEADS])
def test_tuples_hold_what_the_fields_hold(model_class):
    model = tiny(model_class, attn_implementation="eager", use_cache=False)
    asked = {"output_hidden_states": True, "output_attentions": True}
    fields = model(random_tokens(2, 4), **asked)
    values = model(random_tokens(2, 4), **asked, return_dict=False)
    assert isinstance(values, tuple)
    assert len(values) == len(fields)
    for value, field in zip(values, fields.to_tuple(), strict=True):
        pairs = zip(value, field, strict=True) if isinstance(value, tuple) else [(value, field)]
        assert all(torch.equal(left, right) for left, right in pairs)


def test_hidden_states_keep_their_gradient():
    model = tiny(attn_implementation="eager")
    outputs = model(random_tokens(2, 4), output_hidden_states=True, output_attentions=True)
    for tensor in (*outputs.hidden_states, *outputs.attentions):
        tensor.retain_grad()
    output_sum = (outputs.last_hidden_state * torch.randn(2, 4, 16)).sum()
    output_sum.backward()
    assert all(tensor.grad.abs().max() > 0 for tensor in (*outputs.hidden_states, *outputs.attentions))


def test_recording_changes_nothing():
    model = tiny(EncoderLMForCausalLM)
    tokens = random_tokens(2, 5)
    expected = output(model, input_ids=tokens)
    model(tokens, output_hidden_states=True)
    assert torch.equal(output(model, input_ids=tokens), expected)

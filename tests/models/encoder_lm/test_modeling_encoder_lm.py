"""The architecture, against PyTorch's own encoder and the formulas of the papers."""

import math
import shutil

import pytest
import torch
from torch import nn
from transformers import AttentionInterface
from transformers.activations import ACT2FN

from hf_distill.models.encoder_lm import (
    EncoderLMForCausalLM,
    EncoderLMForMaskedLM,
    EncoderLMForSequenceClassification,
    EncoderLMForTokenClassification,
    EncoderLMModel,
)
from hf_distill.models.encoder_lm.modeling_encoder_lm import sinusoidal_positions
from tests.models.encoder_lm.tiny_encoders import (
    HEADS,
    HIDDEN_SIZE,
    NO_DROPOUT,
    POSITIONS,
    output,
    padded,
    random_tokens,
    sinusoids_in_loops,
    tiny,
    tiny_config,
)


COMPILERS = [name for name in ("g++", "clang++") if shutil.which(name)]
ACTIVATIONS = {"relu": nn.functional.relu, "gelu": nn.functional.gelu, "silu": nn.functional.silu}


def embedded_in_loops(model, tokens):
    """`sqrt(H) * E[token] + P[position]`, token by token."""
    rows = []
    for row in tokens.tolist():
        vectors = []
        for position, token in enumerate(row):
            vector = model.embed_tokens.weight[token] * math.sqrt(HIDDEN_SIZE)
            vectors.append(vector + torch.tensor(sinusoids_in_loops(position, HIDDEN_SIZE)))
        rows.append(torch.stack(vectors))
    return torch.stack(rows)


def pytorch_encoder(model):
    """PyTorch's encoder with the weights of ours."""
    config = model.config
    layer = nn.TransformerEncoderLayer(
        config.hidden_size,
        config.num_attention_heads,
        config.intermediate_size,
        dropout=0.0,
        batch_first=True,
        norm_first=config.pre_norm,
    )
    norm = nn.LayerNorm(config.hidden_size) if config.pre_norm else None
    encoder = nn.TransformerEncoder(layer, config.num_hidden_layers, norm=norm, enable_nested_tensor=False)
    for theirs, ours in zip(encoder.layers, model.layers, strict=True):
        projections = (ours.self_attn.q_proj, ours.self_attn.k_proj, ours.self_attn.v_proj)
        theirs.load_state_dict(
            {
                "self_attn.in_proj_weight": torch.cat([projection.weight for projection in projections]),
                "self_attn.in_proj_bias": torch.cat([projection.bias for projection in projections]),
                "self_attn.out_proj.weight": ours.self_attn.o_proj.weight,
                "self_attn.out_proj.bias": ours.self_attn.o_proj.bias,
                "linear1.weight": ours.mlp.up_proj.weight,
                "linear1.bias": ours.mlp.up_proj.bias,
                "linear2.weight": ours.mlp.down_proj.weight,
                "linear2.bias": ours.mlp.down_proj.bias,
                "norm1.weight": ours.self_attn_norm.weight,
                "norm1.bias": ours.self_attn_norm.bias,
                "norm2.weight": ours.mlp_norm.weight,
                "norm2.bias": ours.mlp_norm.bias,
            }
        )
        theirs.activation = ACTIVATIONS.get(config.hidden_act, ours.mlp.act_fn)
    if norm is not None:
        norm.load_state_dict(model.norm.state_dict())
    return encoder


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("hidden_act", ["relu", "gelu"])
@pytest.mark.parametrize("lengths", [(7, 7, 7), (7, 3, 5)], ids=["whole", "padded"])
@pytest.mark.parametrize("is_decoder", [False, True], ids=["bidirectional", "causal"])
@pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])
def test_equals_the_encoder_of_pytorch(pre_norm, is_decoder, lengths, hidden_act, implementation):
    model = tiny(pre_norm=pre_norm, is_decoder=is_decoder, hidden_act=hidden_act, attn_implementation=implementation)
    batch = padded(lengths)
    real = batch["attention_mask"].bool()
    causal = torch.ones(7, 7, dtype=torch.bool).triu(1) if is_decoder else None
    expected = pytorch_encoder(model)(
        embedded_in_loops(model, batch["input_ids"]), mask=causal, src_key_padding_mask=~real
    )
    found = model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    assert expected[real].std() > 0.5
    assert (found - expected)[real].abs().max() < 1e-5


def test_sinusoids_are_those_of_the_paper():
    positions = torch.tensor([[0, 1, 2, 31, 500, 5000]])
    expected = torch.tensor([[sinusoids_in_loops(position, 12) for position in positions[0].tolist()]])
    assert (sinusoidal_positions(positions, 12) - expected).abs().max() < 5e-4
    assert torch.equal(sinusoidal_positions(positions[:, :1], 12)[0, 0], torch.tensor([0.0, 1.0] * 6))


@pytest.mark.parametrize("position_type", ["sinusoidal", "rotary"])
def test_computed_positions_know_no_end(position_type):
    model = tiny(position_embedding_type=position_type, max_position_embeddings=8)
    longer = tiny(position_embedding_type=position_type, max_position_embeddings=64)
    tokens = random_tokens(2, 40)
    assert torch.equal(output(model, input_ids=tokens), output(longer, input_ids=tokens))


def test_sinusoids_keep_their_precision_in_a_half_precision_model():
    """At a frequency rounded to bfloat16, position 1000 would be wrong by whole turns."""
    model = tiny(num_hidden_layers=1).bfloat16()
    seen = []
    model.layers[0].register_forward_hook(lambda module, arguments, result: seen.append(arguments[0]))
    model(inputs_embeds=torch.zeros(1, 1, HIDDEN_SIZE, dtype=torch.bfloat16), position_ids=torch.tensor([[1000]]))
    expected = torch.tensor(sinusoids_in_loops(1000, HIDDEN_SIZE))
    assert (seen[0][0, 0].float() - expected).abs().max() < 2**-8


def test_learned_positions_are_added_unscaled():
    model = tiny(position_embedding_type="learned", num_hidden_layers=1)
    seen = []
    model.layers[0].register_forward_hook(lambda module, arguments, result: seen.append(arguments[0]))
    tokens = random_tokens(1, 3)
    model(tokens, position_ids=torch.tensor([[4, 0, 2]]))
    for place, position in enumerate((4, 0, 2)):
        word = model.embed_tokens.weight[tokens[0, place]] * HIDDEN_SIZE**0.5
        assert torch.allclose(seen[0][0, place], word + model.embed_positions.weight[position], atol=1e-6)


@pytest.mark.parametrize("position_ids", [None, torch.tensor([[0, 1, 40]])], ids=["counted", "given"])
def test_too_few_learned_positions(position_ids):
    model = tiny(position_embedding_type="learned", max_position_embeddings=8)
    length = 9 if position_ids is None else 3
    needed = 9 if position_ids is None else 41
    with pytest.raises(ValueError, match=rf"has {needed} positions, and max_position_embeddings=8 .*'rotary'"):
        model(random_tokens(1, length), position_ids=position_ids)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_rotary_positions_are_relative(implementation):
    model = tiny(position_embedding_type="rotary", attn_implementation=implementation)
    tokens = random_tokens(2, 6)
    here = torch.arange(6)[None]
    shifted = output(model, input_ids=tokens, position_ids=here + 11)
    assert torch.allclose(output(model, input_ids=tokens, position_ids=here), shifted, atol=1e-5)
    stretched = output(model, input_ids=tokens, position_ids=here * 2)
    assert not torch.allclose(stretched, shifted, atol=1e-2)


def test_rotary_attention_is_that_of_the_paper():
    """Su et al. (2021), equation 34, with the halves of a head as the pairs, as in Transformers."""
    model = tiny(position_embedding_type="rotary", num_hidden_layers=1, attn_implementation="eager")
    tokens = random_tokens(1, 5)
    attention = model.layers[0].self_attn
    hidden = model.embed_tokens(tokens)[0] * HIDDEN_SIZE**0.5
    queries, keys = attention.q_proj(hidden).view(5, 4, 4), attention.k_proj(hidden).view(5, 4, 4)

    def turned(vector, position):
        result = torch.empty(4)
        for pair in range(2):
            angle = position * 10000 ** (-2 * pair / 4)
            first, second = vector[pair], vector[pair + 2]
            result[pair] = first * math.cos(angle) - second * math.sin(angle)
            result[pair + 2] = second * math.cos(angle) + first * math.sin(angle)
        return result

    found = model(tokens, output_attentions=True).attentions[0][0]
    for head in range(4):
        for query in range(5):
            scores = [turned(queries[query, head], query) @ turned(keys[key, head], key) / 2.0 for key in range(5)]
            assert torch.allclose(found[head, query], torch.stack(scores).softmax(0), atol=1e-5)


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "dynamic", "factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0},
    ],
    ids=lambda scaling: scaling["rope_type"],
)
def test_rotary_positions_take_the_scalings_of_transformers(scaling):
    tokens = random_tokens(1, 40)
    plain = output(tiny(position_embedding_type="rotary"), input_ids=tokens)
    scaled = output(tiny(position_embedding_type="rotary", rope_parameters=scaling), input_ids=tokens)
    assert scaled.isfinite().all()
    assert not torch.allclose(plain, scaled, atol=1e-3)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("position_type", POSITIONS)
@pytest.mark.parametrize("model_class", HEADS)
def test_eager_equals_sdpa(model_class, position_type, side):
    batch = padded((7, 3, 5), side)
    real = batch["attention_mask"].bool()
    found = {}
    for implementation in ("eager", "sdpa"):
        model = tiny(model_class, position_embedding_type=position_type, attn_implementation=implementation)
        scores = output(model, **batch)
        scores = scores[real] if scores.shape[:2] == real.shape else scores
        scores.square().sum().backward()
        found[implementation] = scores, [parameter.grad for parameter in model.parameters()]
    assert torch.allclose(found["eager"][0], found["sdpa"][0], atol=1e-5)
    for eager, sdpa in zip(found["eager"][1], found["sdpa"][1], strict=True):
        assert (eager - sdpa).abs().max() <= 1e-4 * max(1.0, eager.abs().max())


@pytest.mark.slow
@pytest.mark.skipif(not COMPILERS, reason="flex attention is compiled on a CPU, and there is no C++ compiler")
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # of Transformers' call, and of what PyTorch's compiler imports
@pytest.mark.parametrize("model_class", [EncoderLMForMaskedLM, EncoderLMForCausalLM])
def test_eager_equals_flex(model_class):
    batch = padded((7, 3, 5))
    real = batch["attention_mask"].bool()
    eager = tiny(model_class, attn_implementation="eager")
    flex = tiny(model_class, attn_implementation="flex_attention")
    with torch.no_grad():
        assert torch.allclose(output(flex, **batch)[real], output(eager, **batch)[real], atol=1e-5)


def test_attention_can_be_changed_on_a_living_model():
    model = tiny(EncoderLMForMaskedLM, attn_implementation="sdpa")
    tokens = random_tokens(2, 6)
    before = output(model, input_ids=tokens)
    assert model(tokens, output_attentions=False).attentions is None
    model.set_attn_implementation("eager")
    assert {module.config._attn_implementation for module in model.modules() if hasattr(module, "config")} == {"eager"}
    assert model(tokens, output_attentions=True).attentions[0] is not None
    assert torch.allclose(before, output(model, input_ids=tokens), atol=1e-5)


@pytest.mark.parametrize("hidden_act", sorted(ACT2FN))
def test_every_activation_of_transformers(hidden_act):
    model = tiny(hidden_act=hidden_act)
    tokens = random_tokens(2, 5)
    expected = pytorch_encoder(model)(embedded_in_loops(model, tokens))
    assert (model(tokens).last_hidden_state - expected).abs().max() < 1e-5


def test_a_causal_token_sees_no_later_one():
    causal, bidirectional = tiny(EncoderLMForCausalLM), tiny(EncoderLMForMaskedLM)
    tokens = random_tokens(1, 6)
    changed = tokens.clone()
    changed[0, 4] = (changed[0, 4] + 1) % 50
    assert torch.allclose(output(causal, input_ids=tokens)[:, :4], output(causal, input_ids=changed)[:, :4], atol=1e-6)
    for place in range(6):
        differs = not torch.allclose(
            output(bidirectional, input_ids=tokens)[:, place],
            output(bidirectional, input_ids=changed)[:, place],
            atol=1e-4,
        )
        assert differs, place


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_is_causal_of_one_call(implementation):
    """Transformers' switch: a causal model as an encoder for one call, and the other way round."""
    causal = tiny(is_decoder=True, attn_implementation=implementation)
    bidirectional = tiny(is_decoder=False, attn_implementation=implementation)
    tokens = random_tokens(2, 6)
    for model, other in ((causal, bidirectional), (bidirectional, causal)):
        found = output(model, input_ids=tokens, is_causal=other.config.is_decoder)
        assert torch.allclose(found, output(other, input_ids=tokens), atol=1e-5)
        assert not torch.allclose(found, output(model, input_ids=tokens), atol=1e-2)
        assert not hasattr(model.config, "is_causal")


def test_packed_rows_do_not_see_each_other():
    """Positions that start anew are new rows to the causal mask, as in Transformers."""
    model = tiny(EncoderLMForCausalLM)
    tokens = random_tokens(1, 9)
    packed = output(model, input_ids=tokens, position_ids=torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]]), use_cache=False)
    alone = [output(model, input_ids=part) for part in (tokens[:, :4], tokens[:, 4:])]
    assert torch.allclose(packed, torch.cat(alone, dim=1), atol=1e-5)


@pytest.mark.parametrize("is_decoder", [False, True], ids=["bidirectional", "causal"])
def test_an_attention_of_ones_own(is_decoder):
    """It gets what flash attention reads: causality from the module, and packed rows, where the mask has them too."""
    calls = []

    def attend(module, queries, keys, values, mask, **options):
        calls.append((module.layer_idx, module.is_causal, mask, options["scaling"], options["position_ids"]))
        return torch.zeros_like(queries).transpose(1, 2), None

    AttentionInterface.register("written_down", attend)
    model = tiny(is_decoder=is_decoder, attn_implementation="written_down")
    packed = torch.tensor([[0, 1, 0, 1, 2]])
    model(random_tokens(1, 5), position_ids=packed)
    assert calls == [(layer, is_decoder, None, 0.5, packed if is_decoder else None) for layer in range(2)]


@pytest.mark.parametrize("model_class", [EncoderLMForSequenceClassification, EncoderLMForTokenClassification])
def test_dropout_of_a_classifier(model_class):
    own = model_class(tiny_config(hidden_dropout_prob=0.25, classifier_dropout=0.75))
    assert own.dropout.p == 0.75
    assert own.model.dropout.p == own.model.layers[0].dropout.p == 0.25
    assert model_class(tiny_config(hidden_dropout_prob=0.25)).dropout.p == 0.25
    assert model_class(tiny_config(hidden_dropout_prob=0.25, classifier_dropout=0.0)).dropout.p == 0.0
    always = tiny(model_class, **NO_DROPOUT, classifier_dropout=1.0).train()
    found = output(always, input_ids=random_tokens(2, 4))
    assert torch.equal(found, always.classifier.bias.expand_as(found))


def test_dropout_is_off_in_evaluation_only():
    model = tiny(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    tokens = random_tokens(2, 6)
    assert torch.equal(output(model, input_ids=tokens), output(model, input_ids=tokens))
    without = tiny(**NO_DROPOUT)
    assert torch.equal(output(model, input_ids=tokens), output(without, input_ids=tokens))
    assert not torch.equal(output(model.train(), input_ids=tokens), output(model, input_ids=tokens))
    assert torch.equal(output(without.train(), input_ids=tokens), output(without, input_ids=tokens))


@pytest.mark.parametrize("name", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_each_dropout_acts(name, implementation):
    model = tiny(**{**NO_DROPOUT, name: 0.5}, attn_implementation=implementation).train()
    tokens = random_tokens(2, 6)
    assert not torch.equal(output(model, input_ids=tokens), output(model, input_ids=tokens))


def test_chunks_of_the_feed_forward_change_nothing():
    tokens = random_tokens(2, 6)
    whole = output(tiny(), input_ids=tokens)
    model = tiny(chunk_size_feed_forward=2)
    calls = []
    model.layers[0].mlp.register_forward_hook(lambda module, arguments, result: calls.append(arguments[0].shape[1]))
    assert torch.allclose(output(model, input_ids=tokens), whole, atol=1e-6)
    assert calls == [2, 2, 2]


def test_exactly_one_input():
    model = tiny()
    tokens = random_tokens(1, 3)
    with pytest.raises(ValueError, match="Exactly one of input_ids and inputs_embeds must be given, not neither"):
        model()
    with pytest.raises(ValueError, match="Exactly one of input_ids and inputs_embeds must be given, not both"):
        model(tokens, inputs_embeds=model.embed_tokens(tokens))


def test_the_encoder_without_a_head_is_causal_by_its_configuration():
    tokens = random_tokens(1, 4)
    assert tiny(EncoderLMModel)(tokens).past_key_values is None
    cache = tiny(EncoderLMModel, is_decoder=True)(tokens).past_key_values
    assert cache.get_seq_length() == 4

"""What is read is what the model computes with, and reading it changes nothing."""

import copy

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    CLIPConfig,
    CLIPModel,
    LEDConfig,
    LEDModel,
    LongformerConfig,
    LongformerModel,
)
from transformers.testing_utils import CaptureLogger
from transformers.utils import logging

from hf_distill.errors import UnsupportedModelError
from hf_distill.feature_reading import FeatureReader, anatomy_of, reader_of
from hf_distill.types import Feature, Unit
from tests.architectures import CASES, ENCODER_DECODERS, batch_of, model_of
from tests.tiny_models import VOCAB_SIZE, bert


PROJECTED = ("queries", "keys", "values")
AFTER_ATTENTION = ("output.dense", "out_lin", "o_proj", "out_proj", "attn.c_proj", "Wo", "SelfAttention.o")
"""The ends of the paths of the maps that read what the heads have gathered, self-attention's first in each block."""
UNSCALED = ("t5",)


def read(model, features, batch):
    reader = FeatureReader(model, features)
    reader.attach()
    outputs, found = reader.call(model, batch, {})
    reader.remove()
    return outputs, found


def attached(model, features, parts=None):
    reader = FeatureReader(model, features, parts)
    reader.attach()
    return reader


def everything(side, layers=2):
    hidden = [Feature("hidden_states", layer, side) for layer in range(layers + 1)]
    return hidden + [
        Feature(kind, layer, side) for kind in (*PROJECTED, "attentions") for layer in range(1, layers + 1)
    ]


def rotated(tensor, theta):
    """Rotary positions, angle by angle: the halves of a head are the two axes of each plane."""
    half = tensor.shape[-1] // 2
    result = torch.empty_like(tensor)
    for position in range(tensor.shape[-2]):
        for pair in range(half):
            angle = torch.tensor(position * theta ** (-pair / half), dtype=torch.double)
            x, y = tensor[..., position, pair], tensor[..., position, pair + half]
            result[..., position, pair] = x * angle.cos() - y * angle.sin()
            result[..., position, pair + half] = y * angle.cos() + x * angle.sin()
    return result


def position_bias(architecture, model, side, length):
    """What T5 adds to its scores: a learned number for each bucket of distances."""
    if architecture != "t5":
        return 0.0
    attention = model.get_encoder().block[0] if side == "encoder" else model.get_decoder().block[0]
    return attention.layer[0].SelfAttention.compute_bias(length, length).double()


def scores_of(architecture, model, side, layer, queries, keys):
    if architecture in ("llama", "modernbert"):
        parameters = model.config.rope_parameters
        if architecture == "modernbert":
            parameters = parameters[model.config.layer_types[layer - 1]]
        queries, keys = (rotated(tensor, parameters["rope_theta"]) for tensor in (queries, keys))
    scale = 1.0 if architecture in UNSCALED else queries.shape[-1] ** -0.5
    if architecture == "deberta-v2":
        scale = (queries.shape[-1] * 3) ** -0.5
    scores = queries @ keys.transpose(-1, -2) * scale
    return scores + position_bias(architecture, model, side, scores.shape[-1])


@pytest.mark.parametrize("architecture, side", CASES)
def test_queries_and_keys_give_the_models_own_attention(architecture, side):
    """softmax(q kᵀ · scale) is the map that the model reports; rotation and relative biases come after the reading."""
    model, batch = model_of(architecture, 2).double().eval(), batch_of(architecture)
    if architecture == "deberta-v2":  # its scores of relative positions are learned maps of their own
        for block in model.deberta.encoder.layer:
            block.attention.self.relative_attention = False
            block.attention.self.pos_att_type = ["c2p", "p2c"]
        model.deberta.encoder.relative_attention = False
    _, found = read(model, everything(side), batch)
    for layer in (1, 2):
        queries, keys, expected = (found[Feature(kind, layer, side)] for kind in ("queries", "keys", "attentions"))
        scores = scores_of(architecture, model, side, layer, queries, keys)
        length = scores.shape[-1]
        is_causal = side == "decoder" or architecture in ("gpt2", "llama")
        allowed = torch.ones(length, length, dtype=torch.bool).tril() if is_causal else torch.ones(()).bool()
        if "attention_mask" in batch and side != "decoder":
            allowed = allowed & batch["attention_mask"].bool()[:, None, None]
        probabilities = torch.softmax(scores.masked_fill(~allowed, -torch.inf), dim=-1)
        real = batch["attention_mask"].bool() if "attention_mask" in batch and side != "decoder" else None
        rows = torch.ones(len(scores), length, dtype=torch.bool) if real is None else real
        probabilities, expected = (tensor.transpose(1, 2)[rows] for tensor in (probabilities, expected))
        torch.testing.assert_close(probabilities, expected, rtol=1e-5, atol=1e-6)
        assert (expected - expected.mean(-1, keepdim=True)).abs().max() > 0.05  # not the uniform map


@pytest.mark.parametrize("architecture, side", CASES)
def test_values_give_what_the_heads_gather(architecture, side):
    """The map after the attention reads Σ_keys probability · value, head after head."""
    model, batch = model_of(architecture, 2).double().eval(), batch_of(architecture)
    gathered = []
    named = [(path, module) for path, module in model.named_modules() if path.endswith(AFTER_ATTENTION)]
    if side is not None:
        named = [(path, module) for path, module in named if side in path.split(".")]
    self_attention = [
        module
        for path, module in named
        if "encoder_attn" not in path and ("attention" in path.lower() or "attn" in path.lower())
    ]
    for module in self_attention:
        module.register_forward_pre_hook(lambda module, args: gathered.append(args[0].detach()))
    _, found = read(model, everything(side), batch)
    assert len(gathered) == 2
    for layer in (1, 2):
        values, probabilities = found[Feature("values", layer, side)], found[Feature("attentions", layer, side)]
        heads = [probabilities[:, head] @ values[:, head] for head in range(values.shape[1])]
        expected = gathered[layer - 1].flatten(2) if gathered[layer - 1].ndim > 3 else gathered[layer - 1]
        torch.testing.assert_close(torch.cat(heads, dim=-1), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture, side", CASES)
def test_hidden_states_are_counted_from_the_embeddings(architecture, side):
    """Layer 0 is what the first block reads, layer n what block n returns, the last one after a final norm if any."""
    model, batch = model_of(architecture, 3).double().eval(), batch_of(architecture)
    blocks = FeatureReader(model, [Feature("hidden_states", 0, side)])._stacks[side or ""].blocks
    seen = {}

    def remember(block, args, output):
        seen[list(blocks).index(block)] = args[0], output[0] if isinstance(output, tuple) else output

    for block in blocks:
        block.register_forward_hook(remember)
    _, found = read(model, [Feature("hidden_states", layer, side) for layer in range(4)], batch)
    torch.testing.assert_close(found[Feature("hidden_states", 0, side)], seen[0][0], rtol=0, atol=0)
    for layer in (1, 2):
        torch.testing.assert_close(found[Feature("hidden_states", layer, side)], seen[layer - 1][1], rtol=0, atol=0)
    last = found[Feature("hidden_states", 3, side)]
    if architecture in ("gpt2", "llama", "t5", "modernbert") or architecture == "whisper":
        assert not torch.allclose(last, seen[2][1])
    else:
        torch.testing.assert_close(last, seen[2][1], rtol=0, atol=0)


@pytest.mark.parametrize("architecture, side", CASES)
def test_reading_changes_nothing(architecture, side):
    model, batch = model_of(architecture, 2).eval(), batch_of(architecture)
    batch = {name: value.float() if value.is_floating_point() else value for name, value in batch.items()}
    before = model(**batch)
    hidden_and_projected = [feature for feature in everything(side) if feature.kind != "attentions"]
    reader = attached(model, hidden_and_projected)
    outputs, _ = reader.call(model, batch, {})
    after = model(**batch)
    assert list(outputs) == list(before) == list(after)
    assert torch.equal(outputs.logits, before.logits)
    assert torch.equal(after.logits, before.logits)
    reader.remove()
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert reader_of(model) is None


def test_fast_attention_stays_on_for_queries_and_hidden_states():
    model = model_of("bert", 1)
    attached(model, [Feature("queries", 1), Feature("hidden_states", 1)])
    assert model.config._attn_implementation == "sdpa"


def test_attention_probabilities_ask_for_eager_and_say_so():
    model = model_of("bert", 1)
    with CaptureLogger(logging.get_logger("hf_distill.feature_reading.reader")) as captured:
        reader = attached(model, [Feature("attentions", 1)])
    assert "BertForSequenceClassification, which 'sdpa' attention never makes" in captured.out
    assert model.config._attn_implementation == "eager"
    reader.remove()
    assert model.config._attn_implementation == "sdpa"


def test_what_the_user_asks_the_model_to_record_stays_in_its_outputs():
    model = model_of("bert", 2)
    model.config.output_hidden_states = True
    outputs, _ = read(model, [Feature("hidden_states", 1)], batch_of("bert"))
    assert [state.shape for state in outputs.hidden_states] == [(2, 7, 16)] * 3


def test_two_towers_are_told_apart():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    vision = {**sizes, "image_size": 8, "patch_size": 4}
    text = {**sizes, "vocab_size": VOCAB_SIZE, "bos_token_id": 1, "eos_token_id": 2}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision)).eval()
    batch = {"input_ids": torch.tensor([[3, 4, 2], [5, 6, 2]]), "pixel_values": torch.randn(2, 3, 8, 8)}
    features = [Feature("hidden_states", 1, side) for side in ("text_model", "vision_model")]
    _, found = read(model, [*features, Feature("queries", 2, "vision_model")], batch)
    assert [found[feature].shape for feature in features] == [(2, 3, 16), (2, 5, 16)]
    with pytest.raises(
        UnsupportedModelError, match=r"CLIPModel has the stacks \['text_model', 'vision_model'\].* not com"
    ):
        FeatureReader(model, [Feature("queries", 1)])


def test_projections_of_which_tokens_are_the_first_axis_are_not_read():
    """Longformer turns rows and tokens around before it projects, which a square batch would not show."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    longformer = LongformerModel(LongformerConfig(**sizes, vocab_size=VOCAB_SIZE, attention_window=4))
    width = {"d_model": 16, "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "encoder_layers": 1}
    led = LEDModel(LEDConfig(**width, decoder_layers=1, decoder_attention_heads=2, vocab_size=VOCAB_SIZE))
    for model, side in ((longformer, None), (led, "encoder")):
        assert anatomy_of(model).stack(side).attention_width == 0
        with pytest.raises(UnsupportedModelError, match="has 0 self-attentions whose queries"):
            FeatureReader(model, [Feature("queries", 1, side)])
    assert anatomy_of(led).stack("decoder").attention_width == 16


def test_projections_of_other_tokens_than_the_inputs():
    """A model that pads its inputs itself makes more queries than there are tokens."""
    model = bert(layers=1)
    reader = FeatureReader(model, [Feature("queries", 1)])
    reader.attach()
    tokens = {Unit.TOKEN: torch.ones(2, 3, dtype=torch.bool)}
    with pytest.raises(UnsupportedModelError, match=r"queries of layer 1 for .* \(2, 5\), and the batch has \(2, 3\)"):
        reader.call(model, {"input_ids": torch.full((2, 5), 3)}, tokens)
    reader.call(model, {"input_ids": torch.full((2, 3), 3)}, tokens)


@pytest.mark.parametrize("architecture, side", CASES)
def test_checkpointing_keeps_the_gradient(architecture, side):
    gradients = []
    for is_checkpointing in (False, True):
        model, batch = model_of(architecture, 2).double().train(), batch_of(architecture)
        if is_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        features = [Feature("hidden_states", 1, side), *(Feature(kind, 2, side) for kind in PROJECTED)]
        outputs, found = read(model, features, batch)
        (outputs.logits.square().sum() + sum(tensor.square().sum() for tensor in found.values())).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-10, atol=1e-12)


def test_recomputation_records_nothing():
    """The reader has let go by then: a second recording would keep every block's activations alive."""
    model = model_of("bert", 2).train()
    model.activation_checkpointing_enable({"use_reentrant": False})
    reader = attached(model, [Feature("queries", 1), Feature("keys", 2)])
    _, found = reader.call(model, batch_of("bert"), {})
    assert reader._recorded == {}
    sum(tensor.sum() for tensor in found.values()).backward()
    assert reader._recorded == {}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("architecture", ["bert", "gpt2", "t5"])
def test_a_compiled_model_gives_the_same(architecture, backend):
    side = "encoder" if architecture in ENCODER_DECODERS else None
    model, batch = model_of(architecture, 2).double().train(), batch_of(architecture)
    features = [Feature("hidden_states", 2, side), *(Feature(kind, 1, side) for kind in PROJECTED)]
    _, expected = read(copy.deepcopy(model), features, batch)
    reader = attached(model, features)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for _ in range(2):
        _, found = reader.call(compiled, batch, {})
    assert found.keys() == expected.keys()
    for feature, tensor in expected.items():
        torch.testing.assert_close(found[feature], tensor)
    sum(tensor.square().sum() for tensor in found.values()).backward()
    assert sum(p.grad.norm() for p in model.parameters() if p.grad is not None) > 0


@pytest.mark.parametrize("feature", [Feature("hidden_states", 3), Feature("queries", 0), Feature("values", -1)])
def test_a_layer_that_is_not_there(feature):
    with pytest.raises(UnsupportedModelError, match=rf"{feature.kind} of the layers [01] to 2, and layer"):
        FeatureReader(model_of("bert", 2), [feature])


def test_blocks_that_share_their_weights():
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "embedding_size": 8}
    model = AlbertForSequenceClassification(AlbertConfig(**sizes, vocab_size=VOCAB_SIZE, num_hidden_layers=3))
    with pytest.raises(UnsupportedModelError, match="has 1 blocks and recorded 4 hidden_states"):
        read(model, [Feature("hidden_states", 1)], batch_of("bert"))


def test_a_block_that_runs_twice():
    model = model_of("bert", 2)
    model.bert.encoder.layer[1] = model.bert.encoder.layer[0]
    with pytest.raises(UnsupportedModelError, match="block 1 of BertForSequenceClassification runs several times"):
        read(model, [Feature("keys", 1)], batch_of("bert"))


def test_a_copy_of_a_model_has_a_copy_of_its_reader():
    model = model_of("bert", 2).eval()
    feature = Feature("hidden_states", 1, projection="p")
    reader = attached(model, [feature], {"p": torch.nn.Linear(16, 8)})
    twin = copy.deepcopy(model).double()
    _, found = reader_of(twin).call(twin, batch_of("bert"), {})
    assert found[feature].dtype == torch.double
    assert reader_of(twin).parts["p"].weight is twin._distillation["p"].weight is not reader.parts["p"].weight
    assert reader_of(model) is reader


def test_padding_reaches_no_learned_part():
    model, batch = model_of("bert", 1).eval(), batch_of("bert")
    feature = Feature("hidden_states", 1, projection="p")
    reader = attached(model, [feature], {"p": torch.nn.Linear(16, 3)})
    _, found = reader.call(model, batch, {Unit.TOKEN: batch["attention_mask"].bool()})
    for token in batch["attention_mask"].logical_not().nonzero().tolist():
        assert torch.equal(found[feature][tuple(token)], reader.parts["p"].bias)
    _, unmasked = reader.call(model, batch, {})
    assert not torch.equal(found[feature][1, -1], unmasked[feature][1, -1])

"""Generation, in the ways of Transformers."""

import pytest
import torch
from transformers import GenerationConfig, StaticCache

from hf_distill.models.encoder_lm import EncoderLMForCausalLM, EncoderLMForMaskedLM
from tests.models.encoder_lm.tiny_encoders import POSITIONS, padded, random_tokens, tiny


NEW = 6
GREEDY = {"max_new_tokens": NEW, "do_sample": False}


def causal(**options):
    """A model that does not end early. Its weights are large, so that its choices are clear."""
    return tiny(EncoderLMForCausalLM, bos_token_id=1, eos_token_id=None, pad_token_id=0, **options)


def greedy_in_a_loop(model, tokens, length=NEW):
    for _ in range(length):
        scores = model(tokens, use_cache=False).logits[:, -1]
        tokens = torch.cat((tokens, scores.argmax(-1, keepdim=True)), dim=1)
    return tokens


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("use_cache", [False, True])
@pytest.mark.parametrize("position_type", POSITIONS)
def test_greedy(position_type, use_cache, implementation):
    model = causal(position_embedding_type=position_type, attn_implementation=implementation)
    tokens = random_tokens(2, 4)
    expected = greedy_in_a_loop(model, tokens)
    assert len({tuple(row[4:].tolist()) for row in expected}) == 2
    assert torch.equal(model.generate(tokens, use_cache=use_cache, **GREEDY), expected)


def test_the_cache_is_used():
    model = causal()
    lengths = []
    model.model.layers[0].register_forward_hook(lambda module, inputs, result: lengths.append(inputs[0].shape[1]))
    model.generate(random_tokens(1, 4), **GREEDY)
    assert lengths == [4] + [1] * (NEW - 1)


@pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])
@pytest.mark.parametrize("position_type", POSITIONS)
def test_padded_rows_write_what_they_write_alone(position_type, pre_norm):
    model = causal(position_embedding_type=position_type, pre_norm=pre_norm)
    batch = padded((5, 2, 4), side="left")
    together = model.generate(batch["input_ids"], attention_mask=batch["attention_mask"], **GREEDY)
    for row in range(3):
        real = batch["attention_mask"][row].bool()
        alone = model.generate(batch["input_ids"][row][real][None], **GREEDY)
        assert torch.equal(together[row, -NEW:], alone[0, -NEW:])


def test_given_positions_are_kept():
    model = causal(position_embedding_type="learned")
    tokens = random_tokens(1, 3)
    seen = []
    model.model.embed_positions.register_forward_hook(lambda module, inputs, result: seen.append(inputs[0].tolist()))
    model.generate(tokens, attention_mask=torch.tensor([[0, 1, 1]]), max_new_tokens=3, do_sample=False)
    assert [positions[0][-1] for positions in seen] == [1, 2, 3]


def test_scores_are_the_logits():
    model = causal()
    tokens = random_tokens(2, 4)
    found = model.generate(tokens, return_dict_in_generate=True, output_logits=True, **GREEDY)
    logits = model(found.sequences).logits
    for step, scores in enumerate(found.logits):
        assert torch.allclose(scores, logits[:, 3 + step], atol=1e-5)
    assert found.past_key_values.get_seq_length() == 4 + NEW - 1


def test_attentions_and_hidden_states_of_each_step():
    model = causal(attn_implementation="eager")
    found = model.generate(
        random_tokens(2, 4), return_dict_in_generate=True, output_attentions=True, output_hidden_states=True, **GREEDY
    )
    assert [maps[0].shape[-2:] for maps in found.attentions] == [(4, 4)] + [(1, 5 + step) for step in range(NEW - 1)]
    assert [states[-1].shape[1] for states in found.hidden_states] == [4] + [1] * (NEW - 1)


def beams_in_a_loop(model, tokens, num_beams):
    """Beam search without an end token: the highest sum of log-probabilities that the beams lead to."""
    beams = [(0.0, tokens)]
    for _ in range(NEW):
        longer = []
        for score, row in beams:
            chances = model(row, use_cache=False).logits[0, -1].log_softmax(-1)
            for token, chance in enumerate(chances.tolist()):
                longer.append((score + chance, torch.cat((row, torch.tensor([[token]])), dim=1)))
        beams = sorted(longer, key=lambda beam: -beam[0])[:num_beams]
    return beams[0][1]


def test_beam_search():
    model = causal()
    tokens = random_tokens(2, 4)
    expected = torch.cat([beams_in_a_loop(model, row[None], 3) for row in tokens])
    assert torch.equal(model.generate(tokens, num_beams=3, **GREEDY), expected)


def test_sampling_follows_the_seed():
    model = causal()
    tokens = random_tokens(2, 4)
    written = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        written.append(model.generate(tokens, do_sample=True, top_k=0, temperature=3.0, max_new_tokens=NEW))
    assert torch.equal(written[0], written[1])
    assert not torch.equal(written[0], written[2])


def test_sampling_follows_the_probabilities():
    model = causal()
    tokens = random_tokens(1, 4)
    chances = model(tokens).logits[0, -1].softmax(-1)
    drawn = model.generate(tokens.expand(2000, -1), do_sample=True, top_k=0, max_new_tokens=1)[:, -1]
    frequencies = torch.bincount(drawn, minlength=50) / 2000
    assert (frequencies - chances).abs().max() < 0.05
    assert chances.max() < 0.9


@pytest.mark.parametrize("options", [{"num_beams": 2, "do_sample": True}, {"num_return_sequences": 3, "num_beams": 3}])
def test_several_rows_of_each(options):
    torch.manual_seed(0)
    rows = options.get("num_return_sequences", 1)
    written = causal().generate(random_tokens(2, 4), **{"do_sample": False, "max_new_tokens": NEW, **options})
    assert written.shape == (2 * rows, 4 + NEW)


def test_continues_from_a_past():
    model = causal()
    tokens = random_tokens(1, 4)
    expected = model.generate(tokens, max_new_tokens=8, do_sample=False)
    first = model.generate(tokens, max_new_tokens=3, do_sample=False, return_dict_in_generate=True)
    rest = model.generate(first.sequences, past_key_values=first.past_key_values, max_new_tokens=5, do_sample=False)
    assert torch.equal(rest, expected)


@pytest.mark.parametrize("position_type", POSITIONS)
def test_assisted(position_type):
    """A draft of another model, or of the row's own words, changes the speed and never the words."""
    model = causal(position_embedding_type=position_type)
    assistant = causal(seed=1, position_embedding_type=position_type)
    tokens = random_tokens(1, 4)
    expected = greedy_in_a_loop(model, tokens)
    assert torch.equal(model.generate(tokens, assistant_model=assistant, **GREEDY), expected)
    assert torch.equal(model.generate(tokens, assistant_model=model, **GREEDY), expected)
    assert torch.equal(model.generate(tokens, prompt_lookup_num_tokens=2, **GREEDY), expected)


def test_from_embeddings():
    model = causal()
    tokens = random_tokens(2, 4)
    written = model.generate(inputs_embeds=model.get_input_embeddings()(tokens), **GREEDY)
    assert torch.equal(written, greedy_in_a_loop(model, tokens)[:, 4:])


def test_from_nothing():
    model = causal()
    assert torch.equal(model.generate(**GREEDY), greedy_in_a_loop(model, torch.tensor([[1]])))


def test_ends_at_the_end_token():
    model = causal()
    tokens = random_tokens(1, 4)
    third = greedy_in_a_loop(model, tokens)[0, 6].item()
    written = model.generate(tokens, generation_config=GenerationConfig(eos_token_id=third, pad_token_id=0, **GREEDY))
    assert written[0, -1] == third
    assert written.shape[1] <= 7


@pytest.mark.parametrize("side_lengths", [(4, 4), (4, 2)], ids=["whole", "padded"])
@pytest.mark.parametrize("position_type", POSITIONS)
def test_static_cache(position_type, side_lengths):
    model = causal(position_embedding_type=position_type)
    batch = padded(side_lengths, side="left")
    del batch["position_ids"]
    expected = model.generate(**batch, **GREEDY)
    found = model.generate(**batch, cache_implementation="static", disable_compile=True, **GREEDY)
    assert torch.equal(found, expected)


def test_a_step_is_one_graph():
    """What `_can_compile_fullgraph` claims, for a step with a static cache."""
    model = causal()
    tokens = random_tokens(1, 5)
    cache = StaticCache(config=model.config, max_cache_len=8)
    with torch.no_grad():
        model(tokens[:, :4], past_key_values=cache)
        step = torch.compile(model, fullgraph=True, backend="eager")
        found = step(tokens[:, 4:], past_key_values=cache, position_ids=torch.tensor([[4]])).logits
    assert torch.allclose(found, model(tokens).logits[:, -1:], atol=1e-5)


def test_only_the_causal_model_generates():
    assert EncoderLMForCausalLM.can_generate()
    assert not EncoderLMForMaskedLM.can_generate()
    assert not hasattr(tiny(EncoderLMForMaskedLM), "generate")


def test_too_long_for_learned_positions():
    model = causal(position_embedding_type="learned", max_position_embeddings=6)
    with pytest.raises(ValueError, match="has 7 positions, and max_position_embeddings=6"):
        model.generate(random_tokens(1, 4), **GREEDY)

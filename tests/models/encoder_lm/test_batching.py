"""A row says the same alone, among other rows, and padded on either side."""

import pytest
import torch

from hf_distill.models.encoder_lm import (
    EncoderLMForCausalLM,
    EncoderLMForMaskedLM,
    EncoderLMForSequenceClassification,
    EncoderLMModel,
)
from tests.models.encoder_lm.tiny_encoders import HEADS, POSITIONS, output, padded, random_tokens, tiny


LENGTHS = (6, 2, 4)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("position_type", POSITIONS)
@pytest.mark.parametrize(
    ("model_class", "options"),
    [*((model_class, {}) for model_class in (EncoderLMModel, *HEADS)), (HEADS[2], {"classifier_pooling": "mean"})],
)
def test_a_padded_row_is_the_row_alone(model_class, options, position_type, side, implementation):
    model = tiny(model_class, position_embedding_type=position_type, attn_implementation=implementation, **options)
    batch = padded(LENGTHS, side)
    together = output(model, **batch)
    for row, length in enumerate(LENGTHS):
        real = batch["attention_mask"][row].bool()
        alone = output(model, input_ids=batch["input_ids"][row][real][None])
        if model_class is EncoderLMForSequenceClassification:
            found = together[row]
        else:
            found = together[row][real]
            assert len(found) == length
        assert torch.allclose(found, alone[0], atol=1e-5)


@pytest.mark.parametrize("model_class", [EncoderLMModel, *HEADS])
def test_the_order_of_rows_changes_nothing(model_class):
    model = tiny(model_class)
    batch = padded(LENGTHS)
    order = torch.tensor([2, 0, 1])
    turned = output(model, **{name: tensor[order] for name, tensor in batch.items()})
    assert torch.allclose(turned, output(model, **batch)[order], atol=1e-6)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("model_class", HEADS)
def test_a_mask_of_ones_and_counted_positions_change_nothing(model_class, implementation):
    model = tiny(model_class, attn_implementation=implementation)
    tokens = random_tokens(2, 5)
    expected = output(model, input_ids=tokens)
    mask = torch.ones_like(tokens)
    for options in (
        {"attention_mask": mask},
        {"attention_mask": mask.bool()},
        {"position_ids": torch.arange(5)[None]},
        {"attention_mask": mask, "position_ids": torch.arange(5).expand(2, 5)},
    ):
        assert torch.allclose(output(model, input_ids=tokens, **options), expected, atol=1e-6)


@pytest.mark.parametrize("model_class", HEADS)
def test_what_padding_holds_changes_nothing(model_class):
    model = tiny(model_class)
    batch = padded(LENGTHS)
    real = batch["attention_mask"].bool()
    other = {**batch, "input_ids": torch.where(real, batch["input_ids"], 0)}
    expected, found = output(model, **batch), output(model, **other)
    if expected.shape[:2] == real.shape:
        expected, found = expected[real], found[real]
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("model_class", [EncoderLMModel, *HEADS])
def test_embeddings_may_be_given(model_class):
    model = tiny(model_class)
    batch = padded(LENGTHS)
    expected = output(model, **batch)
    embeddings = model.get_input_embeddings()(batch.pop("input_ids"))
    assert torch.equal(output(model, inputs_embeds=embeddings, **batch), expected)


def test_a_mask_of_four_dimensions_is_taken_as_it_is():
    model = tiny(EncoderLMForMaskedLM, attn_implementation="sdpa")
    tokens = random_tokens(1, 5)
    causal = torch.ones(1, 1, 5, 5, dtype=torch.bool).tril()
    by_hand = output(model, input_ids=tokens, attention_mask=causal)
    assert torch.allclose(by_hand, output(model, input_ids=tokens, is_causal=True), atol=1e-5)


def test_the_mean_needs_a_mask_of_tokens():
    model = tiny(EncoderLMForSequenceClassification, classifier_pooling="mean")
    with pytest.raises(ValueError, match=r"attention_mask has shape \(1, 1, 5, 5\), and classifier_pooling='mean'"):
        model(random_tokens(1, 5), attention_mask=torch.ones(1, 1, 5, 5, dtype=torch.bool))


@pytest.mark.parametrize("side", ["left", "right"])
def test_pooling_reads_real_tokens(side):
    batch = padded(LENGTHS, side)
    for pooling in ("cls", "mean"):
        model = tiny(EncoderLMForSequenceClassification, classifier_pooling=pooling)
        hidden = model.model(**batch).last_hidden_state
        logits = model(**batch).logits
        for row, length in enumerate(LENGTHS):
            first = 6 - length if side == "left" else 0
            pooled = hidden[row, first]
            if pooling == "mean":
                pooled = sum(hidden[row, first + place] for place in range(length)) / length
            assert torch.allclose(model.classifier(pooled), logits[row], atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_row_of_padding_alone_stays_finite(side):
    batch = padded((5, 0), side)
    for model_class in HEADS:
        for implementation in ("eager", "sdpa"):
            for pooling in ("cls", "mean"):
                model = tiny(model_class, attn_implementation=implementation, classifier_pooling=pooling)
                assert output(model, **batch).isfinite().all()


@pytest.mark.parametrize("split", [1, 3])
@pytest.mark.parametrize("position_type", POSITIONS)
def test_a_cache_is_the_tokens_before(position_type, split):
    model = tiny(EncoderLMForCausalLM, position_embedding_type=position_type)
    tokens = random_tokens(2, 6)
    whole = output(model, input_ids=tokens)
    first = model(tokens[:, :split])
    rest = model(tokens[:, split:], past_key_values=first.past_key_values)
    assert torch.allclose(torch.cat((first.logits, rest.logits), dim=1), whole, atol=1e-5)
    assert rest.past_key_values.get_seq_length() == 6


def test_no_cache_unless_asked():
    tokens = random_tokens(1, 4)
    assert tiny(EncoderLMForCausalLM)(tokens, use_cache=False).past_key_values is None
    assert tiny(EncoderLMForCausalLM, use_cache=False)(tokens).past_key_values is None
    assert tiny(EncoderLMForCausalLM, use_cache=False)(tokens, use_cache=True).past_key_values is not None
    assert tiny(EncoderLMModel)(tokens, use_cache=True).past_key_values is None


def test_logits_to_keep():
    model = tiny(EncoderLMForCausalLM)
    tokens = random_tokens(2, 6)
    logits = model(tokens).logits
    assert torch.allclose(model(tokens, logits_to_keep=2).logits, logits[:, -2:], atol=1e-6)
    places = torch.tensor([1, 4])
    assert torch.allclose(model(tokens, logits_to_keep=places).logits, logits[:, places], atol=1e-6)

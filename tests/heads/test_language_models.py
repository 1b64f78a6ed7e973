"""Heads that choose a token."""

import pytest
import torch
from transformers import (
    BartConfig,
    BartForCausalLM,
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    MarianConfig,
    MarianForCausalLM,
    ProphetNetConfig,
    ProphetNetForCausalLM,
    TrOCRConfig,
    TrOCRForCausalLM,
    XLNetConfig,
    XLNetLMHeadModel,
)

from hf_distill.errors import ConfigurationError
from hf_distill.heads import CausalLMHead, MaskedLMHead, head_of
from hf_distill.types import Unit
from tests.gradients import ALPHA, TEMPERATURE, recorded_run, relative_difference
from tests.reference import reference_gradients
from tests.tiny_models import SIZES, VOCAB_SIZE, PaddingCollator, encoder_decoder, model_for, rows_for
from tests.tiny_trainers import loss_logs, trainer_for


TOKENS = torch.ones(2, 4, dtype=torch.long)
RIGHT = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
LEFT = RIGHT.flip(1)


def test_masked_tokens_are_compared():
    labels = torch.tensor([[-100, 7, -100, 3], [-100, -100, -100, -100]])
    where = MaskedLMHead().positions({"input_ids": TOKENS, "attention_mask": RIGHT, "labels": labels})
    assert torch.equal(where.mask, labels != -100)
    assert where.counts.items() >= {Unit.LABEL: 2, Unit.POSITION: 2}.items()


def test_text_without_masks_is_compared_at_real_tokens():
    assert torch.equal(MaskedLMHead().mask({"input_ids": TOKENS, "attention_mask": LEFT}), LEFT.bool())


def test_causal_positions_count_if_the_next_token_does():
    labels = torch.tensor([[5, -100, 6, 7], [8, 9, -100, -100]])
    where = CausalLMHead().positions({"input_ids": TOKENS, "labels": labels})
    assert where.mask.tolist() == [[False, True, True, False], [True, False, False, False]]
    assert where.counts.items() >= {Unit.LABEL: 3, Unit.POSITION: 3}.items()


@pytest.mark.parametrize("padding", [RIGHT, LEFT], ids=["right", "left"])
def test_causal_positions_predict_a_real_token_from_a_real_token(padding):
    """With and without labels. Padding on the left does not predict the first token."""
    batch = {"input_ids": TOKENS, "attention_mask": padding}
    real = padding.bool().tolist()
    expected = [[t < 3 and real[row][t] and real[row][t + 1] for t in range(4)] for row in range(2)]
    assert CausalLMHead().mask(batch).tolist() == expected
    assert CausalLMHead().mask({**batch, "labels": TOKENS.masked_fill(padding == 0, -100)}).tolist() == expected


def test_the_teacher_is_compared_where_it_has_read_the_same_text():
    """The labels count everywhere, as without such a teacher."""
    where = CausalLMHead().positions(
        {"input_ids": TOKENS, "labels": TOKENS, "teacher_positions": torch.tensor([[-1, 0, 3, 4], [2, -1, -1, -1]])}
    )
    assert where.mask.tolist() == [[False, True, True, False], [True, False, False, False]]
    assert where.counts.items() >= {Unit.LABEL: 6, Unit.POSITION: 3}.items()


def test_the_label_that_padding_would_predict_is_left_out():
    labels = torch.tensor([[5, 6, 7, 8], [-100, -100, 9, 4]])
    given = CausalLMHead().labels({"input_ids": TOKENS, "attention_mask": LEFT, "labels": labels})
    assert given["labels"].tolist() == [[5, 6, 7, 8], [-100, -100, -100, 4]]
    assert labels[1, 2] == 9
    shifted = {"input_ids": TOKENS, "attention_mask": LEFT, "labels": labels, "shift_labels": labels}
    assert CausalLMHead().labels(shifted)["labels"] is labels
    assert CausalLMHead().labels({"input_ids": TOKENS}) == {}


PROPHETNET = {"vocab_size": VOCAB_SIZE, "hidden_size": 16, "decoder_ffn_dim": 24, "num_decoder_layers": 1}
PROPHETNET |= {"num_decoder_attention_heads": 2}


def decoders():
    alone = {"is_encoder_decoder": False, "is_decoder": True, "pad_token_id": 0, "activation_dropout": 0.0}
    sizes = {"vocab_size": VOCAB_SIZE, "n_layer": 1, "n_head": 2}
    return {
        "bart": BartForCausalLM(encoder_decoder(BartConfig, 1, **alone)),
        "marian": MarianForCausalLM(encoder_decoder(MarianConfig, 1, decoder_vocab_size=VOCAB_SIZE, **alone)),
        "trocr": TrOCRForCausalLM(encoder_decoder(TrOCRConfig, 1, **alone)),
        "prophetnet": ProphetNetForCausalLM(ProphetNetConfig(**alone, **PROPHETNET, ngram=1)),
        "xlnet": XLNetLMHeadModel(XLNetConfig(**sizes, d_model=16, d_inner=24)),
        "gpt2": GPT2LMHeadModel(GPT2Config(**sizes, n_embd=16)),
        "bert": BertLMHeadModel(BertConfig(**SIZES, num_hidden_layers=1, is_decoder=True)),
        "llama": model_for("causal", 1),
    }


@pytest.mark.parametrize("name", decoders())
def test_the_positions_are_those_of_the_models_own_loss(name):
    """Found by Transformers' own loss: the mean cross-entropy over the positions that count, each with its label."""
    model = decoders()[name].eval()
    batch = PaddingCollator()(rows_for("causal"))
    batch["labels"][:, 2] = -100
    head = head_of(model)
    labels = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=-100)
    labels = labels if head.shifts_labels else batch["labels"]
    with torch.no_grad():
        outputs = model(**batch)
    where = head.mask(batch)
    scores = outputs.logits[where].log_softmax(-1)
    assert outputs.loss.item() == pytest.approx(-scores.gather(1, labels[where][:, None]).mean().item(), rel=1e-5)
    assert head.num_labels(batch) == where.sum()
    assert head.shifts_labels is (name in ("gpt2", "bert", "llama"))


def test_an_unshifted_decoder_without_labels_compares_all_real_tokens():
    head = CausalLMHead(shifts_labels=False)
    assert torch.equal(head.mask({"input_ids": TOKENS, "attention_mask": RIGHT}), RIGHT.bool())
    assert head.labels({"input_ids": TOKENS, "attention_mask": LEFT, "labels": TOKENS})["labels"] is TOKENS


def test_labels_that_are_already_shifted():
    shifted = torch.tensor([[-100, 6, 7, 8], [9, -100, -100, -100]])
    where = CausalLMHead().positions({"input_ids": TOKENS, "labels": TOKENS, "shift_labels": shifted})
    assert torch.equal(where.mask, shifted != -100)
    assert where.counts.items() >= {Unit.LABEL: 4, Unit.POSITION: 4}.items()


@pytest.mark.parametrize("head", [CausalLMHead(), MaskedLMHead()])
def test_logits_are_as_the_model_gives_them(head):
    logits = torch.randn(2, 4, 6)
    assert head.logits({"logits": logits}, {}) is logits
    assert head.is_language_model


def test_all_real_tokens_of_a_masked_model(tmp_path):
    """The labels' loss stays that of the masked tokens."""
    head = MaskedLMHead(compare="real")
    batch = PaddingCollator(extra=2)(rows_for("masked"))
    where = head.positions(batch)
    assert torch.equal(where.mask, batch["attention_mask"].bool())
    assert where.counts[Unit.LABEL] == (batch["labels"] != -100).sum() < where.counts[Unit.POSITION]
    logs = []
    for changes in ({}, {"head": head}):
        trainer = trainer_for(tmp_path, "masked", max_steps=1, **changes)
        trainer.train()
        logs.append(loss_logs(trainer)[0])
    assert logs[0]["loss/labels"] == pytest.approx(logs[1]["loss/labels"], rel=1e-6)
    assert logs[0]["loss/soft"] != pytest.approx(logs[1]["loss/soft"], rel=1e-3)
    with pytest.raises(ConfigurationError, match=r"'masked' or 'real', got 'all'"):
        MaskedLMHead(compare="all")


@pytest.mark.parametrize("batch_size", [8, 2])
def test_prompts_are_left_out(tmp_path, batch_size):
    """Labels of -100 on the first tokens leave them out of both terms: the first one counted follows the prompt."""
    rows = rows_for("causal")
    for index, row in enumerate(rows):
        prompt = 1 + index % 3
        row["labels"] = [-100] * prompt + row["labels"][prompt:]
    (gradients,), (log,), _ = recorded_run(
        tmp_path, model_for("causal", 1), model_for("causal", 2), rows, batch_size, accumulation=8 // batch_size
    )
    models = model_for("causal", 1).double().train(), model_for("causal", 2).double().eval()
    means, expected = reference_gradients(*models, "causal", rows, TEMPERATURE, ALPHA)
    assert relative_difference(gradients, expected) < 1e-6
    assert log["loss/soft"] == pytest.approx(means["soft"], rel=1e-6)
    assert means["soft"] != pytest.approx(
        reference_gradients(*models, "causal", rows_for("causal"), 3.0, 0.3)[0]["soft"]
    )

"""Heads that are held back train like heads that build their logits."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    BertForMaskedLM,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    set_seed,
)

from hf_distill import chunked_training
from tests.architectures import model_of
from tests.test_head_positions import masked
from tests.tiny_models import NO_DROPOUT, SIZES, PaddingCollator, bart, bert, llama, rows_for, t5
from tests.tiny_trainers import float32, trainer_for


def decoder(model_class: Any, config_class: Any, layers: int, **config: Any) -> Any:
    set_seed(layers)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return model_class(config_class(**SIZES, **ids, num_hidden_layers=layers, initializer_range=0.3, **config))


def gemma2(layers: int) -> Any:
    options = {"num_key_value_heads": 2, "head_dim": 8, "final_logit_softcapping": 3.0}
    return decoder(Gemma2ForCausalLM, Gemma2Config, layers, **options)


MODELS = {
    "bert": ("masked", lambda layers: bert(BertForMaskedLM, layers)),
    "roberta": ("masked", lambda layers: masked(RobertaForMaskedLM, RobertaConfig, layers, **NO_DROPOUT)),
    "gpt2": ("causal", lambda layers: model_of("gpt2", layers)),
    "llama": ("causal", lambda layers: llama(layers)),
    "gemma2": ("causal", gemma2),
    "cohere": ("causal", lambda layers: decoder(CohereForCausalLM, CohereConfig, layers, logit_scale=0.3)),
    "granite": ("causal", lambda layers: decoder(GraniteForCausalLM, GraniteConfig, layers, logits_scaling=4.0)),
    "t5": ("seq2seq", t5),
    "bart": ("seq2seq", lambda layers: bart(layers=layers)),
}
every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(autouse=True)
def _any_size_pays(monkeypatch):
    monkeypatch.setattr(chunked_training, "SMALLEST_VOCABULARY", 1)
    monkeypatch.setattr(chunked_training, "SMALLEST_NUM_POSITIONS", 1)


def trainer_of(output_dir, name, **changes):
    task, model = MODELS[name]
    models = {"student": model(1), "teacher": model(2), **changes}
    return trainer_for(output_dir, task, **models, preflight=False)


def batch_of(trainer, name):
    rows = float32(rows_for(MODELS[name][0]))
    return trainer._prepare_inputs(PaddingCollator()(rows))


def step(trainer, batch, whole):
    """The loss, the terms and the gradient of one step, with dropout off."""
    trainer.model.eval()
    trainer.model.zero_grad()
    trainer._log_window.zero_()
    counts = trainer._get_num_items_in_batch([batch], trainer.args.device)
    loss = trainer.compute_loss(trainer.model, dict(batch), return_outputs=whole, num_items_in_batch=counts)
    loss = loss[0] if whole else loss
    loss.backward()
    gradients = {name: each.grad.clone() for name, each in trainer.model.named_parameters() if each.grad is not None}
    return loss.detach(), trainer._log_window.clone(), gradients


def check_same(trainer, batch, **tolerances):
    tolerances = tolerances or {"rtol": 1e-5, "atol": 1e-5}
    whole, chunked = step(trainer, batch, whole=True), step(trainer, batch, whole=False)
    assert trainer._heads_are_chunked
    torch.testing.assert_close(chunked, whole, **tolerances)
    assert any(gradient.abs().max() > 1e-3 for gradient in whole[2].values())


@every_model
def test_loss_terms_and_gradients_are_those_of_whole_logits(tmp_path, name):
    trainer = trainer_of(tmp_path, name)
    check_same(trainer, batch_of(trainer, name))

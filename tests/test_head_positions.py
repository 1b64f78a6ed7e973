"""Heads that see the positions that count train like whole heads."""

from typing import Any

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BertForMaskedLM,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
    set_seed,
)

from hf_distill import EncoderLMConfig, EncoderLMForMaskedLM, EnsembleTeacher, Objective, Term, head_positions
from hf_distill.terms import HardLabelTerm, SoftTargetTerm
from hf_distill.types import Requirements, TermLoss, Unit
from tests.architectures import model_of
from tests.tiny_models import (
    NO_DROPOUT,
    SIZES,
    VOCAB_SIZE,
    PaddingCollator,
    bart,
    bert,
    llama,
    model_for,
    rows_for,
    t5,
    whisper,
)
from tests.tiny_trainers import float32, trainer_for


def masked(model_class: Any, config_class: Any, layers: int, **config: Any) -> Any:
    set_seed(layers)
    sizes = {
        **SIZES,
        "num_hidden_layers": layers,
        "max_position_embeddings": 32,
        "initializer_range": 0.3,
        "pad_token_id": 0,
    }
    return model_class(config_class(**{**sizes, **config}))


def distilbert(layers: int) -> Any:
    set_seed(layers)
    sizes = {"vocab_size": VOCAB_SIZE, "dim": 16, "hidden_dim": 24, "n_heads": 2, "n_layers": layers}
    off = {"dropout": 0.0, "attention_dropout": 0.0}
    return DistilBertForMaskedLM(DistilBertConfig(**sizes, **off, max_position_embeddings=32, initializer_range=0.3))


SMALL_EMBEDDING = {"embedding_size": 8, **NO_DROPOUT}
MODELS = {
    "bert": ("masked", lambda layers: bert(BertForMaskedLM, layers)),
    "roberta": ("masked", lambda layers: masked(RobertaForMaskedLM, RobertaConfig, layers, **NO_DROPOUT)),
    "modernbert": (
        "masked",
        lambda layers: masked(
            ModernBertForMaskedLM,
            ModernBertConfig,
            layers,
            local_attention=64,
            cls_token_id=1,
            sep_token_id=2,
            bos_token_id=1,
            eos_token_id=2,
        ),
    ),
    "distilbert": ("masked", distilbert),
    "electra": (
        "masked",
        lambda layers: masked(ElectraForMaskedLM, ElectraConfig, layers, embedding_size=8, **NO_DROPOUT),
    ),
    "deberta-v2": ("masked", lambda layers: masked(DebertaV2ForMaskedLM, DebertaV2Config, layers, **NO_DROPOUT)),
    "albert": (
        "masked",
        lambda layers: masked(AlbertForMaskedLM, AlbertConfig, layers, embedding_size=8, **NO_DROPOUT),
    ),
    "gpt2": ("causal", lambda layers: model_of("gpt2", layers)),
    "llama": ("causal", lambda layers: llama(layers)),
    "t5": ("seq2seq", t5),
    "bart": ("seq2seq", lambda layers: bart(layers=layers)),
    "whisper": ("speech", whisper),
    "tokens": ("tokens", lambda layers: model_for("tokens", layers)),
    "encoder_lm": ("masked", lambda layers: encoder_lm(layers)),
}


def encoder_lm(layers: int) -> Any:
    set_seed(layers)
    return EncoderLMForMaskedLM(EncoderLMConfig(**SIZES, num_hidden_layers=layers))


def trainer_of(output_dir, name, **changes):
    task, model = MODELS[name]
    models = {"student": model(1), "teacher": model(2), **changes}
    return trainer_for(output_dir, task, **models, preflight=False)


def batch_of(trainer, name):
    rows = float32(rows_for(MODELS[name][0]))
    return trainer._prepare_inputs(PaddingCollator()(rows))


def step(trainer, batch, whole):
    """The loss and the gradient of one step, and how many positions the heads of student and teacher saw."""
    trainer.model.eval()
    seen = []
    models = [trainer.model, *([trainer.teacher.model] if hasattr(trainer.teacher, "model") else [])]
    handles = [
        (model.get_output_embeddings() or model.classifier).register_forward_hook(
            lambda module, args, output: seen.append(args[0].shape[:-1].numel())
        )
        for model in models
    ]
    counts = trainer._get_num_items_in_batch([batch], trainer.args.device)
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, dict(batch), return_outputs=whole, num_items_in_batch=counts)
    loss = loss[0] if whole else loss
    loss.backward()
    for handle in handles:
        handle.remove()
    gradients = {name: each.grad.clone() for name, each in trainer.model.named_parameters() if each.grad is not None}
    return loss.detach(), gradients, seen[-len(models) :]


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_are_those_of_whole_heads(tmp_path, name):
    trainer = trainer_of(tmp_path, name)
    batch = batch_of(trainer, name)
    loss, gradients, seen = step(trainer, batch, whole=True)
    few_loss, few_gradients, few_seen = step(trainer, batch, whole=False)
    mask = trainer.head.mask(batch)
    assert seen == [mask.numel()] * 2
    assert few_seen == [int(mask.sum()) + (MODELS[name][0] == "causal")] * 2
    torch.testing.assert_close(few_loss, loss, rtol=1e-5, atol=1e-6)
    assert few_gradients.keys() == gradients.keys()
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients.values())
    for key, gradient in gradients.items():
        torch.testing.assert_close(
            few_gradients[key], gradient, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: key + text
        )


def test_a_teacher_of_several_answers_at_all_positions(tmp_path):
    members = [bert(BertForMaskedLM, layers) for layers in (2, 3)]
    trainer = trainer_of(tmp_path, "bert", teacher=EnsembleTeacher(members))
    batch = batch_of(trainer, "bert")
    (loss, gradients, _), (few_loss, few_gradients, seen) = (step(trainer, batch, whole) for whole in (True, False))
    assert seen == [int(trainer.head.mask(batch).sum())]
    torch.testing.assert_close(few_loss, loss)
    torch.testing.assert_close(few_gradients, gradients, rtol=1e-4, atol=1e-5)


def test_whole_training_is_the_same(tmp_path, monkeypatch):
    """Also of micro-batches without any label."""
    weights = []
    for largest_share in (head_positions.LARGEST_SHARE, 0.0):
        monkeypatch.setattr(head_positions, "LARGEST_SHARE", largest_share)
        trainer = trainer_of(tmp_path, "bert", per_device_train_batch_size=2, max_steps=4, optim="sgd")
        trainer.train()
        assert trainer._heads_take_rows is (True if largest_share else None)
        weights.append(trainer.model.state_dict())
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)


class RowTerm(Term):
    """One that may ask for the row of a position."""

    unit, requires = Unit.POSITION, Requirements(teacher=True)

    def __call__(self, student, teacher, where, progress):
        assert student.logits.shape[:2] == where.mask.shape == (8, 9)
        return TermLoss(student.logits.sum() * 0, where.counts[self.unit])


@pytest.mark.parametrize(
    "changes",
    [
        {
            "compute_loss_func": lambda outputs, labels, num_items_in_batch: (
                outputs["logits"].sum() / num_items_in_batch
            )
        },
        {"label_smoothing_factor": 0.1},
        {"objective": Objective({"labels": (1.0, HardLabelTerm()), "own": (1.0, RowTerm())})},
        {"torch_compile": True, "torch_compile_backend": "eager"},
    ],
)
def test_where_heads_stay_whole(tmp_path, changes):
    trainer = trainer_of(tmp_path, "bert", **changes)
    batch = batch_of(trainer, "bert")
    assert step(trainer, batch, whole=False)[2][0] == trainer.head.mask(batch).numel()
    assert trainer._heads_take_rows is None


def test_a_model_whose_head_reads_something_else_keeps_it_whole(tmp_path):
    class Mixing(BertForMaskedLM):
        """Its scores depend on the whole row."""

        def forward(self, input_ids, attention_mask=None, labels=None):
            outputs = super().forward(input_ids, attention_mask, labels=labels)
            outputs.logits = outputs.logits + outputs.logits.mean(1, keepdim=True)
            return outputs

    trainer = trainer_of(
        tmp_path, "bert", student=bert(Mixing, 1), objective=Objective({"soft": (1.0, SoftTargetTerm())})
    )
    step(trainer, batch_of(trainer, "bert"), whole=False)
    assert trainer._heads_take_rows is False


def test_evaluation_sees_every_position(tmp_path):
    shapes = []
    trainer = trainer_of(
        tmp_path,
        "bert",
        eval_dataset=rows_for("masked"),
        compute_metrics=lambda prediction: shapes.append(prediction.predictions.shape) or {},
    )
    trainer.train()
    trainer.evaluate()
    assert trainer._heads_take_rows and shapes == [(8, 9, VOCAB_SIZE)]

"""Heads that are held back train like heads that build their logits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    BertForMaskedLM,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
    set_seed,
)

from hf_distill import AdapterOffTeacher, Objective, cache_teacher, chunked_training, preflight_report
from hf_distill.functional import jensen_shannon, reverse_kl
from hf_distill.schedules import Linear
from hf_distill.terms import DecoupledTerm, HardLabelTerm, HiddenStateTerm, SoftTargetTerm
from tests.architectures import model_of
from tests.gradients import recorded_run, relative_difference
from tests.processes import run_two_processes
from tests.test_comparable import padded
from tests.test_head_positions import masked
from tests.tiny_models import (
    NO_DROPOUT,
    SIZES,
    VOCAB_SIZE,
    PaddingCollator,
    bart,
    bert,
    llama,
    rows_for,
    t5,
    word_tokenizer,
)
from tests.tiny_trainers import float32, loss_logs, trainer_for


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


@pytest.mark.parametrize("name", ["bert", "gemma2", "t5"])
def test_positions_are_masked_where_counting_them_would_wait(tmp_path, monkeypatch, name):
    """As on an accelerator, whose heads see all rows."""
    monkeypatch.setattr(chunked_training, "_can_count", lambda where: False)
    monkeypatch.setattr("hf_distill.head_positions.LARGEST_SHARE", 0.0)
    trainer = trainer_of(tmp_path, name)
    check_same(trainer, batch_of(trainer, name))


OBJECTIVES = {
    "reverse": {"labels": (0.2, HardLabelTerm()), "soft": (0.8, SoftTargetTerm(3.0, reverse_kl))},
    "soft alone": {"soft": (0.7, SoftTargetTerm(1.0))},
    "scheduled": {
        "labels": (Linear(0.0, 0.5), HardLabelTerm()),
        "soft": (Linear(1.0, 0.5), SoftTargetTerm(Linear(4.0, 1.0))),
    },
    "layers beside": {
        "hidden": (0.5, HiddenStateTerm(layer_map=[(1, 2)])),
        "soft": (0.5, SoftTargetTerm()),
        "labels": (0.2, HardLabelTerm()),
    },
}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_objectives(tmp_path, name, objective):
    trainer = trainer_of(tmp_path, name, objective=Objective(OBJECTIVES[objective]))
    trainer.state.global_step, trainer.state.max_steps = 3, 8
    with trainer.reading_features():
        check_same(trainer, batch_of(trainer, name))


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_no_tensor_has_the_size_of_all_logits(tmp_path, name):
    """From the first step on, by which that is found out."""
    size = 3_000
    models = {
        "bert": lambda layers: bert(BertForMaskedLM, layers, vocab_size=size),
        "gpt2": lambda layers: GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=16, n_head=2, n_layer=layers)),
        "t5": lambda layers: T5ForConditionalGeneration(T5Config(**T5_SIZES, num_layers=layers, vocab_size=size)),
    }
    task, _ = MODELS[name]
    trainer = trainer_of(
        tmp_path, name, student=models[name](1), teacher=models[name](2), rows=rows_for(task, (90,) * 8)
    )
    batch = trainer._prepare_inputs(PaddingCollator()(rows_for(task, (90,) * 8)))
    counted = int(trainer.head.mask(batch).sum())
    assert counted > 2 * 128
    with LargestTensor() as largest:
        step(trainer, batch, whole=False)
    assert trainer._heads_are_chunked and largest.size <= 128 * size
    with LargestTensor() as largest:
        step(trainer, batch, whole=True)
    assert largest.size >= counted * size


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation returns."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        returned = function(*args, **(kwargs or {}))
        sizes = [each.numel() for each in tree_leaves(returned) if isinstance(each, torch.Tensor)]
        self.size = max([self.size, *sizes])
        return returned


T5_SIZES = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "pad_token_id": 0, "decoder_start_token_id": 0}


@pytest.mark.parametrize("name", ["bert", "llama", "t5"])
def test_the_gradient_depends_neither_on_the_batch_nor_on_padding(tmp_path, name):
    task, model = MODELS[name]
    runs = [
        recorded_run(tmp_path, model(1), model(2), rows_for(task), batch, accumulation, padding, preflight=False)
        for batch, accumulation, padding in ((8, 1, 0), (2, 4, 0), (4, 2, 3))
    ]
    assert all(trainer._heads_are_chunked for _, _, trainer in runs)
    (reference,), (log,), _ = runs[0]
    for (gradients,), (other,), _ in runs[1:]:
        assert relative_difference(gradients, reference) < 1e-9
        assert other["loss/soft"] == pytest.approx(log["loss/soft"], rel=1e-6)
        assert other["loss/labels"] == pytest.approx(log["loss/labels"], rel=1e-6)


@pytest.mark.parametrize("name, changes", [("bert", {}), ("llama", {"activation_checkpointing": True})])
def test_whole_training_is_the_same(tmp_path, monkeypatch, name, changes):
    """Also of micro-batches without any label."""
    weights, logs = [], []
    for smallest in (1, 10**9):
        monkeypatch.setattr(chunked_training, "SMALLEST_VOCABULARY", smallest)
        options = {"per_device_train_batch_size": 2, "max_steps": 4, "optim": "sgd", **changes}
        trainer = trainer_of(tmp_path, name, **options)
        trainer.train()
        assert trainer._heads_are_chunked is (True if smallest == 1 else None)
        weights.append(trainer.model.state_dict())
        logs.append(loss_logs(trainer))
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)
    for ours, theirs in zip(*logs, strict=True):
        kept = {"loss", "loss/soft", "loss/labels"}
        assert {name: ours[name] for name in kept} == pytest.approx({name: theirs[name] for name in kept}, rel=1e-4)


def test_mixed_precision(tmp_path):
    """Products in bfloat16, sums in float32, as of whole logits."""
    trainer = trainer_of(tmp_path, "llama", bf16=True)
    trainer.model = trainer.accelerator.prepare_model(trainer.model)
    check_same(trainer, batch_of(trainer, "llama"), rtol=3e-2, atol=3e-2)


def test_a_cached_teacher(tmp_path):
    rows = rows_for("causal")
    for top_k in (None, 8):
        options = {"dtype": "float32", "data_collator": PaddingCollator(), "top_k": top_k}
        cache = cache_teacher(llama(2), rows, tmp_path / f"cache {top_k}", **options)
        trainer = trainer_of(tmp_path, "llama", teacher=cache)
        check_same(trainer, trainer._prepare_inputs(trainer.collator_for(PaddingCollator(), True)(rows)))


def test_a_teacher_of_several_answers_whole(tmp_path):
    trainer = trainer_of(tmp_path, "bert", teacher=[bert(BertForMaskedLM, layers) for layers in (2, 3)])
    check_same(trainer, batch_of(trainer, "bert"))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_student_without_its_adapter_as_teacher(tmp_path):
    student = get_peft_model(llama(1), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    trainer = trainer_of(tmp_path, "llama", student=student, teacher=AdapterOffTeacher())
    check_same(trainer, batch_of(trainer, "llama"))


@pytest.mark.parametrize("student_rows, teacher_rows", [(0, 8), (4, 8), (8, 4)])
def test_vocabularies_that_are_padded_differently(tmp_path, student_rows, teacher_rows):
    tokens = [f"token{index}" for index in range(VOCAB_SIZE)]
    word_tokenizer(*tokens).save_pretrained(tmp_path / "teacher")
    student, teacher = padded(llama(1), student_rows), padded(llama(2), teacher_rows)
    teacher.name_or_path = str(tmp_path / "teacher")
    trainer = trainer_of(tmp_path, "llama", student=student, teacher=teacher, processing_class=word_tokenizer(*tokens))
    check_same(trainer, batch_of(trainer, "llama"))


class OtherLoss(BertForMaskedLM):
    """Its own loss is the cross-entropy, and in training a little more."""

    def forward(self, input_ids, attention_mask=None, labels=None):
        outputs = super().forward(input_ids, attention_mask, labels=labels)
        if outputs.loss is not None and self.training:
            outputs.loss = outputs.loss * 1.0001
        return outputs


class OtherLogits(BertForMaskedLM):
    """What its head returns is not what it says."""

    def forward(self, input_ids, attention_mask=None, labels=None):
        outputs = super().forward(input_ids, attention_mask, labels=labels)
        outputs.logits = outputs.logits * 1.01
        return outputs


class TwoHeads(BertForMaskedLM):
    """Its head runs twice."""

    def forward(self, input_ids, attention_mask=None, labels=None):
        outputs = super().forward(input_ids, attention_mask, labels=labels)
        self.cls.predictions.decoder(torch.zeros(1, self.config.hidden_size))
        return outputs


def hooked(model):
    model.get_output_embeddings().register_forward_hook(lambda module, args, output: output.clamp(max=1.0))
    return model


def adapted_head():
    return get_peft_model(bert(BertForMaskedLM, 1), LoraConfig(r=2, target_modules=["decoder", "query"]))


def mixture(layers=1):
    sizes = {**SIZES, "num_local_experts": 2, "num_key_value_heads": 2, "output_router_logits": True}
    set_seed(layers)
    return MixtralForCausalLM(MixtralConfig(**sizes, num_hidden_layers=layers))


DENSE = {
    "another own loss": ("bert", {"student": lambda: bert(OtherLoss, 1)}, False),
    "other logits": ("bert", {"student": lambda: bert(OtherLogits, 1), "alpha": 0.0}, False),
    "a teacher's other logits": ("bert", {"teacher": lambda: bert(OtherLogits, 2)}, False),
    "two heads": ("bert", {"student": lambda: bert(TwoHeads, 1)}, False),
    "experts": ("llama", {"student": mixture}, False),
    "a hook": ("bert", {"student": lambda: hooked(bert(BertForMaskedLM, 1))}, None),
    "an adapter on the head": ("bert", {"student": adapted_head}, None),
    "label smoothing": ("bert", {"label_smoothing_factor": 0.1}, None),
    "compile": ("bert", {"torch_compile": True, "torch_compile_backend": "eager"}, None),
    "another divergence": (
        "bert",
        {"objective": Objective({"soft": (1.0, SoftTargetTerm(2.0, jensen_shannon))})},
        None,
    ),
    "two": ("bert", {"objective": Objective({str(t): (1.0, SoftTargetTerm(t)) for t in (1.0, 2.0)})}, None),
    "labels alone": ("bert", {"objective": Objective({"labels": (1.0, HardLabelTerm())})}, None),
    "a term that reads logits": (
        "bert",
        {"objective": Objective({"soft": (1.0, SoftTargetTerm()), "target": (1.0, DecoupledTerm())})},
        None,
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("case", DENSE)
def test_where_logits_stay_whole(tmp_path, case):
    name, changes, expected = DENSE[case]
    changes = {key: value() if key in ("student", "teacher") else value for key, value in changes.items()}
    trainer = trainer_of(tmp_path, name, **changes)
    whole, other = (step(trainer, batch_of(trainer, name), whole=whole) for whole in (True, False))
    assert trainer._heads_are_chunked is expected
    torch.testing.assert_close(other, whole, rtol=1e-4, atol=1e-4)


def test_a_head_of_few_classes_stays_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(chunked_training, "SMALLEST_VOCABULARY", VOCAB_SIZE + 1)
    trainer = trainer_of(tmp_path, "bert")
    step(trainer, batch_of(trainer, "bert"), whole=False)
    assert trainer._heads_are_chunked is None


EVALUATED = {"eval_loss", "eval_loss/soft", "eval_loss/labels", "eval_perplexity", "eval_agreement"}


def evaluated(tmp_path, name, monkeypatch, is_chunked, **changes):
    monkeypatch.setattr(chunked_training, "SMALLEST_VOCABULARY", 1 if is_chunked else 10**9)
    options = {"eval_dataset": rows_for(MODELS[name][0]), "per_device_eval_batch_size": 4, "report_agreement": True}
    trainer = trainer_of(tmp_path, name, **options, **changes)
    metrics = trainer.evaluate()
    return trainer, {key: value for key, value in metrics.items() if key in EVALUATED}


@every_model
def test_losses_are_evaluated_without_logits(tmp_path, monkeypatch, name):
    monkeypatch.setattr(chunked_training, "NUM_AT_ONCE", 5)
    _, whole = evaluated(tmp_path, name, monkeypatch, is_chunked=False)
    trainer, chunked = evaluated(tmp_path, name, monkeypatch, is_chunked=True)
    assert trainer._heads_are_chunked
    assert chunked == pytest.approx(whole, rel=1e-5)
    assert whole.keys() == EVALUATED
    assert whole["eval_agreement"] < 1


def test_evaluation_of_a_cached_teacher_and_of_a_padded_vocabulary(tmp_path, monkeypatch):
    rows = rows_for("causal")
    options = {"dtype": "float32", "data_collator": PaddingCollator(), "top_k": 8}
    cache = cache_teacher(llama(2), rows, tmp_path / "cache", **options)
    tokens = [f"token{index}" for index in range(VOCAB_SIZE)]
    padding = {
        "student": padded(llama(1), 4),
        "teacher": padded(llama(1), 8),
        "processing_class": word_tokenizer(*tokens),
    }
    word_tokenizer(*tokens).save_pretrained(tmp_path / "teacher")
    padding["teacher"].name_or_path = str(tmp_path / "teacher")
    for changes in ({"teacher": cache}, padding):
        _, whole = evaluated(tmp_path, "llama", monkeypatch, is_chunked=False, **changes)
        trainer, chunked = evaluated(tmp_path, "llama", monkeypatch, is_chunked=True, **changes)
        assert trainer._heads_are_chunked
        assert chunked == pytest.approx(whole, rel=1e-5)
    assert chunked["eval_agreement"] == 1  # of the student with itself, padded


def test_labels_that_no_term_reads_are_evaluated_by_whole_logits(tmp_path, monkeypatch):
    objective = Objective({"soft": (1.0, SoftTargetTerm())})
    trainer, metrics = evaluated(tmp_path, "llama", monkeypatch, is_chunked=True, objective=objective)
    assert trainer._heads_are_chunked is None
    assert metrics["eval_loss/labels"] > 0


def test_metrics_are_given_whole_logits(tmp_path):
    shapes = []
    trainer = trainer_of(
        tmp_path,
        "bert",
        eval_dataset=rows_for("masked"),
        compute_metrics=lambda prediction: shapes.append(prediction.predictions.shape) or {},
    )
    trainer.train()
    metrics = trainer.evaluate()
    assert trainer._heads_are_chunked and shapes == [(8, 9, VOCAB_SIZE)]
    assert {"eval_loss/soft", "eval_loss/labels"} < metrics.keys()


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_equal_one(tmp_path):
    run_two_processes(Path(__file__).with_name("two_processes_with_chunks.py"), tmp_path)
    (expected,), (log,), _ = recorded_run(
        tmp_path, bert(BertForMaskedLM, 1), bert(BertForMaskedLM, 2), rows_for("masked"), 8, preflight=False
    )
    for rank in range(2):
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert found["is_chunked"]
        assert relative_difference(found["gradients"], expected) < 1e-9
        assert found["log"]["loss/soft"] == pytest.approx(log["loss/soft"], rel=1e-6)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_rehearsal_of_few_positions(tmp_path, monkeypatch, name):
    """All of them are as many as these here, so that what it says is what it says of whole logits."""
    task, _ = MODELS[name]
    reports = []
    for smallest in (1, 10**9):
        monkeypatch.setattr(chunked_training, "SMALLEST_VOCABULARY", smallest)
        options = {"eval_dataset": rows_for(task)[4:], "per_device_train_batch_size": 8}
        reports.append(preflight_report(trainer_of(tmp_path, name, **options)))
    ours, theirs = reports
    for term, size in theirs.terms.items():
        assert (ours.terms[term].count, ours.terms[term].weight) == (size.count, size.weight)
        for value in ("value", "gradient", "ratio"):
            assert getattr(ours.terms[term], value) == pytest.approx(getattr(size, value), rel=1e-4)
    assert ours.teacher.value == pytest.approx(theirs.teacher.value, rel=1e-5)
    monkeypatch.setattr(chunked_training, "SMALLEST_VOCABULARY", 1)
    monkeypatch.setattr(chunked_training, "NUM_SAMPLED", 4)
    few = preflight_report(trainer_of(tmp_path, name, **options))
    assert 0 < few.terms["soft"].count <= 4 < ours.terms["soft"].count
    assert few.terms["soft"].value == pytest.approx(ours.terms["soft"].value, rel=0.5)
    assert few.memory.logits < ours.memory.logits < theirs.memory.logits

"""Layers of twelve architectures are learned from, exactly, and what is learned beside the student stays beside it."""

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file
from transformers import set_seed

from hf_distill import DistillationTrainer, Objective, Teacher, check_invariances, preflight_report
from hf_distill.checkpoints import write_manifest
from hf_distill.errors import ConfigurationError, MissingTeacherError, UnsupportedModelError
from hf_distill.feature_reading import reader_of
from hf_distill.feature_training import LEARNED_PARTS
from hf_distill.functional import cosine_distance
from hf_distill.terms import (
    AttentionMapTerm,
    AttentionScoreTerm,
    ContrastiveTerm,
    FlowTerm,
    HardLabelTerm,
    HiddenStateTerm,
    RelationTerm,
    SoftTargetTerm,
    VariationalTerm,
)
from hf_distill.types import Unit
from tests.architectures import CASES, ENCODER_DECODERS, TASKS, model_of
from tests.gradients import GradientRecorder, arguments, relative_difference
from tests.layer_reference import hidden_and_relation
from tests.processes import run_two_processes
from tests.slow_cases import slow_but
from tests.test_resume import StopAt, state_of
from tests.tiny_models import PaddingCollator, model_for, rows_for, word_tokenizer
from tests.tiny_trainers import loss_logs, trainer_for


PAIRS = [(1, 2), (2, 4)]
PARTS = [f"_distillation.hidden_{mine}_{yours}.{kind}" for mine, yours in PAIRS for kind in ("weight", "bias")]


def layers_only(side=None):
    terms = {"hidden": HiddenStateTerm(side=side), "relation": RelationTerm(num_relation_heads=4, side=side)}
    return Objective({name: (1.0, term) for name, term in terms.items()})


def with_logits(side=None):
    return Objective({"layers": (1.0, layers_only(side)), "soft": (0.5, SoftTargetTerm())})


def learned_beside_the_student():
    """All that is learned, but for maps of the rows of a micro-batch."""
    terms = {"blend": HiddenStateTerm("learned"), "variational": VariationalTerm(), "flow": FlowTerm()}
    return Objective({name: (1e-3 if name == "flow" else 1.0, term) for name, term in terms.items()})


def contrast():
    return Objective({"learned": (1.0, learned_beside_the_student()), "contrast": (1.0, ContrastiveTerm())})


def float_rows(task, dtype=torch.float32):
    return [
        {name: v.to(dtype) if torch.is_tensor(v) and v.is_floating_point() else v for name, v in row.items()}
        for row in rows_for(task)
    ]


def trainer_of(output_dir, architecture="bert", dtype=torch.float32, **changes):
    """A student of 2 layers and width 16, and a teacher of 4 and 24."""
    options = {
        "student": model_of(architecture, 2).to(dtype),
        "teacher": model_of(architecture, 4, width=24).to(dtype),
    }
    side = "decoder" if architecture in ENCODER_DECODERS else None
    options |= {"objective": with_logits(side), "rows": float_rows(TASKS[architecture], dtype)}
    return trainer_for(output_dir, TASKS[architecture], **{**options, **changes})


@pytest.mark.parametrize("architecture, side", CASES)
def test_every_architecture_learns_from_layers_and_logits(tmp_path, architecture, side):
    recorder = GradientRecorder()
    trainer = trainer_of(tmp_path, architecture, max_steps=1, callbacks=[recorder], objective=with_logits(side))
    before = {
        who: copy.deepcopy(m.state_dict())
        for who, m in (("student", trainer.model), ("teacher", trainer.teacher.model))
    }
    trainer.train()
    (gradients,), (log,) = recorder.steps, loss_logs(trainer)
    assert all(log[f"loss/{name}"] > 0 for name in ("layers/hidden", "layers/relation", "soft"))
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    parts = [name for name in gradients if name.startswith("_distillation.")]
    assert len(parts) == 4 and all(gradients[name].norm() > 0 for name in parts)
    after = trainer.model.state_dict()
    moved = [name for name, weight in before["student"].items() if not torch.equal(weight, after[name])]
    assert len(moved) > len(after) / 2
    teacher = trainer.teacher.model.state_dict()
    assert all(torch.equal(weight, teacher[name]) for name, weight in before["teacher"].items())


SPLITS = {
    "one batch of 8": {"per_device_train_batch_size": 8},
    "4 batches of 2": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    "8 batches of 1": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
    "padded further": {"per_device_train_batch_size": 8, "data_collator": PaddingCollator(5)},
    "checkpointed": {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "activation_checkpointing": True,
    },
    "compiled": {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "torch_compile": True,
        "torch_compile_backend": "aot_eager",
    },
    "compiled and checkpointed": {
        "per_device_train_batch_size": 8,
        "torch_compile": True,
        "torch_compile_backend": "aot_eager",
        "activation_checkpointing": True,
    },
}


def expected_gradients(trainer):
    """Of the student and of the learned parts, by the names that they have while training."""
    student, teacher = model_of("bert", 2).double().train(), model_of("bert", 4, width=24).double().eval()
    parts = copy.deepcopy(trainer._readers[0].parts).double()
    parts.zero_grad()
    means = hidden_and_relation(student, teacher, parts, rows_for("single_label"), PAIRS, num_relation_heads=4)
    sum(means.values()).backward()
    gradients = {name: p.grad for name, p in student.named_parameters() if p.grad is not None}
    gradients |= {f"_distillation.{name}": p.grad for name, p in parts.named_parameters()}
    return {name: mean.item() for name, mean in means.items()}, gradients


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of Dynamo at a graph break
@pytest.mark.parametrize("split", slow_but([split for split in SPLITS if "compiled" not in split], SPLITS))
def test_gradients_equal_the_reference_however_a_batch_is_split(tmp_path, split):
    recorder = GradientRecorder()
    torch._dynamo.reset()
    changes = {"learning_rate": 0.0, "num_train_epochs": 1, "max_steps": -1, **SPLITS[split]}
    trainer = trainer_of(tmp_path, dtype=torch.float64, objective=layers_only(), callbacks=[recorder], **changes)
    trainer.train()
    means, expected = expected_gradients(trainer)
    (gradients,), (log,) = recorder.steps, loss_logs(trainer)
    gradients = {name.replace("_orig_mod.", ""): gradient for name, gradient in gradients.items()}
    assert set(PARTS) <= gradients.keys() <= expected.keys() | gradients.keys()
    reached = {name: gradient for name, gradient in gradients.items() if name in expected}
    assert all(gradient.norm() == 0 for name, gradient in gradients.items() if name not in expected)
    assert relative_difference(reached, expected) < 1e-6
    assert all(expected[name].norm() > 1e-3 for name in PARTS)
    for name, mean in means.items():
        assert log[f"loss/{name}"] == pytest.approx(mean, rel=1e-6)


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize("batch_size, accumulation", [(4, 1), (1, 4)])
def test_two_processes_have_the_gradients_of_the_reference(tmp_path, batch_size, accumulation):
    run_two_processes(
        Path(__file__).with_name("two_processes_with_layers.py"), tmp_path, batch_size, accumulation, "layers"
    )
    means, expected = expected_gradients(trainer_of(tmp_path, dtype=torch.float64, objective=layers_only()))
    for rank in range(2):
        saved = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        reached = {name: gradient for name, gradient in saved["gradients"].items() if name in expected}
        assert relative_difference(reached, expected) < 1e-6
        assert saved["log"]["loss/hidden"] == pytest.approx(means["hidden"], rel=1e-6)


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_have_the_gradients_of_one_for_all_that_is_learned(tmp_path):
    run_two_processes(Path(__file__).with_name("two_processes_with_layers.py"), tmp_path, 2, 2, "learned")
    recorder = GradientRecorder()
    options = {"learning_rate": 0.0, "max_steps": 1, "per_device_train_batch_size": 8, "callbacks": [recorder]}
    trainer_of(tmp_path, dtype=torch.float64, objective=learned_beside_the_student(), **options).train()
    (expected,) = recorder.steps
    assert sum(name.startswith("_distillation") for name in expected) == 16
    for rank in range(2):
        gradients = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)["gradients"]
        assert relative_difference(gradients, expected) < 1e-6


def test_clipping_includes_the_learned_parts(tmp_path):
    recorder = GradientRecorder()
    trainer = trainer_of(tmp_path, callbacks=[recorder], max_steps=1, max_grad_norm=0.01)
    trainer.train()
    (gradients,) = recorder.steps
    total = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    assert total.item() == pytest.approx(0.01, rel=1e-3)
    assert sum(gradients[f"_distillation.layers/hidden_{pair}.weight"].norm() for pair in ("1_2", "2_4")) > 0


def test_the_learned_parts_are_trained(tmp_path):
    trainer = trainer_of(tmp_path)
    before = copy.deepcopy(trainer._readers[0].parts.state_dict())
    trainer.train()
    after = trainer._readers[0].parts.state_dict()
    assert all(not torch.equal(weight, after[name]) for name, weight in before.items())


def test_the_student_is_saved_alone_and_detached_at_the_end(tmp_path):
    trainer = trainer_of(tmp_path, save_strategy="steps", save_steps=1)
    names = set(trainer.model.state_dict())
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    for folder in ("checkpoint-1", "checkpoint-2", "saved"):
        assert set(load_file(tmp_path / folder / "model.safetensors")) == names
    assert len(load_file(tmp_path / "checkpoint-1" / LEARNED_PARTS)) == 4
    assert not (tmp_path / "saved" / LEARNED_PARTS).exists()
    for model in (trainer.model, trainer.teacher.model):
        assert reader_of(model) is None
        assert all(not module._forward_pre_hooks for module in model.modules())
        assert not model._state_dict_hooks and not model._load_state_dict_post_hooks
    assert {name for name, _ in trainer.model.named_parameters()} <= names
    assert type(trainer.model).from_pretrained(tmp_path / "saved").config.num_hidden_layers == 2


def resumable(output_dir, objective):
    set_seed(0)
    student = model_of("bert", 2)
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    changes = {"max_steps": 10, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "logging_steps": 4}
    return trainer_of(
        output_dir, student=student, save_strategy="steps", save_steps=6, objective=objective(), **changes
    )


@pytest.mark.parametrize("objective", [with_logits, contrast])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, objective):
    resumable(tmp_path / "whole", objective).train()
    interrupted = resumable(tmp_path / "parts", objective)
    interrupted.add_callback(StopAt(6))
    interrupted.train()
    resumed = resumable(tmp_path / "parts", objective)
    resumed.train(resume_from_checkpoint=True)
    whole, other = (tmp_path / run / "checkpoint-10" for run in ("whole", "parts"))
    states = [{**state_of(folder), "parts": load_file(folder / LEARNED_PARTS)} for folder in (whole, other)]
    for part in ("weights", "optimizer", "parts"):
        assert states[0][part].keys() == states[1][part].keys()
        assert all(torch.equal(tensor, states[1][part][name]) for name, tensor in states[0][part].items()), part
    assert states[0]["logs"] == states[1]["logs"]
    half = load_file(tmp_path / "parts" / "checkpoint-6" / LEARNED_PARTS)
    assert all(not torch.equal(tensor, half[name]) for name, tensor in states[0]["parts"].items())


def test_a_checkpoint_without_the_learned_parts(tmp_path):
    trainer_of(tmp_path, save_strategy="steps", save_steps=1).train()
    (tmp_path / "checkpoint-2" / LEARNED_PARTS).unlink()
    write_manifest(tmp_path / "checkpoint-2")
    with pytest.raises(ConfigurationError, match=f"checkpoint-2' has no {LEARNED_PARTS}"):
        trainer_of(tmp_path).train(resume_from_checkpoint=True)


def test_the_best_model_comes_with_its_learned_parts(tmp_path):
    trainer = trainer_of(
        tmp_path,
        eval_dataset=rows_for("single_label"),
        eval_strategy="steps",
        save_strategy="steps",
        save_steps=1,
        eval_steps=1,
        learning_rate=1.0,
        load_best_model_at_end=True,
    )
    trainer.train()
    best = load_file(Path(trainer.state.best_model_checkpoint) / LEARNED_PARTS)
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-1")
    assert all(torch.equal(part, best[name]) for name, part in trainer._readers[0].parts.state_dict().items())
    (logged,) = [log for log in trainer.state.log_history if log["step"] == 1 and "eval_loss" in log]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(logged["eval_loss"], rel=1e-6)


def test_a_second_training_goes_on_with_the_same_parts(tmp_path):
    trainer = trainer_of(tmp_path)
    parts = trainer._readers[0].parts
    trainer.train()
    trainer.train()
    assert trainer._readers[0].parts is parts


def test_a_search_that_replaces_the_student_binds_anew(tmp_path):
    trainer = trainer_of(tmp_path, student=None, model_init=lambda: model_of("bert", 2))
    parts = trainer._readers[0].parts
    trainer.train()
    assert trainer._readers[0].model is trainer.model
    assert trainer._readers[0].parts is not parts
    assert len(loss_logs(trainer)) == 2


def test_evaluation_is_exact_and_gives_no_features_to_metrics(tmp_path):
    seen = {}
    rows = rows_for("single_label")
    trainer = trainer_of(
        tmp_path,
        dtype=torch.float64,
        objective=layers_only(),
        eval_dataset=rows,
        compute_metrics=lambda prediction: seen.update(shape=prediction.predictions.shape) or {},
        per_device_eval_batch_size=3,
    )
    metrics = trainer.evaluate()
    assert seen["shape"] == (8, 3)
    means, _ = expected_gradients(trainer)
    for name, mean in means.items():
        assert metrics[f"eval_loss/{name}"] == pytest.approx(mean, rel=1e-6)
    assert metrics["eval_loss"] == pytest.approx(sum(means.values()), rel=1e-6)
    assert reader_of(trainer.model) is None


def test_the_rehearsal_leaves_the_parts_as_they_were(tmp_path):
    trainer = trainer_of(tmp_path)
    before = copy.deepcopy(trainer._readers[0].parts.state_dict())
    report = preflight_report(trainer)
    assert report.terms["layers/hidden"].gradient > 0
    assert all(torch.equal(weight, before[name]) for name, weight in trainer._readers[0].parts.state_dict().items())
    assert all(parameter.grad is None for parameter in trainer._readers[0].parts.parameters())
    assert reader_of(trainer.model) is None


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "t5", "vit"])
def test_the_invariances_hold(tmp_path, architecture):
    report = check_invariances(trainer_of(tmp_path, architecture))
    assert report["accumulation"].held and report["order of rows"].held and report["teacher unchanged"].held
    assert report["padding"].held in ((True,) if architecture in ("bert", "gpt2") else (True, None))


def test_frames_that_pad_a_sound_count_nowhere(tmp_path):
    objective = Objective({"layers": (1.0, layers_only()), "soft": (1.0, SoftTargetTerm())})
    models = {"student": model_for("transcripts", 2), "teacher": model_for("transcripts", 4)}
    trainer = trainer_for(tmp_path, "transcripts", **models, objective=objective)
    report = check_invariances(trainer)
    assert report["accumulation"].held and report["order of rows"].held
    batch = next(iter(trainer.get_train_dataloader()))
    where = trainer.head.positions(batch)
    assert 0 < where.counts[Unit.TOKEN] == where.mask.sum() < where.mask.numel()


@pytest.mark.parametrize("term", [AttentionMapTerm(), AttentionScoreTerm(), HiddenStateTerm(pooled="mean")])
def test_other_terms_that_compare_layers(tmp_path, term):
    trainer = trainer_of(tmp_path, objective=Objective({"term": (1.0, term), "labels": (1.0, HardLabelTerm())}))
    trainer.train()
    assert all(log["loss/term"] > 0 for log in loss_logs(trainer))
    assert trainer.model.config._attn_implementation == "sdpa"
    assert trainer.teacher.model.config._attn_implementation == "sdpa"


def test_bfloat16_autocast(tmp_path):
    trainer = trainer_of(tmp_path, bf16=True)
    trainer.train()
    exact = trainer_of(tmp_path)
    exact.train()
    for ours, theirs in zip(loss_logs(trainer), loss_logs(exact), strict=True):
        assert ours["loss/layers/hidden"] == pytest.approx(theirs["loss/layers/hidden"], rel=0.05)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # of PEFT 0.21
def test_adapters_learn_from_layers_and_are_saved_alone(tmp_path):
    config = LoraConfig(r=2, target_modules=["query", "value"], task_type=TaskType.SEQ_CLS)
    student = get_peft_model(model_of("bert", 2), config)
    recorder = GradientRecorder()
    trainer = trainer_of(tmp_path, student=student, callbacks=[recorder], save_strategy="steps", save_steps=2)
    trainer.train()
    assert any("lora_B" in name and gradient.norm() > 0 for name, gradient in recorder.steps[0].items())
    assert set(PARTS) - {name.replace("layers/", "") for name in recorder.steps[0]} == set()
    saved = load_file(tmp_path / "checkpoint-2" / "adapter_model.safetensors")
    assert saved and not any("_distillation" in name for name in saved)
    assert len(load_file(tmp_path / "checkpoint-2" / LEARNED_PARTS)) == 4


def test_a_teacher_that_is_no_model(tmp_path):
    class Silent(Teacher):
        input_names = frozenset()

        def signals(self, batch):
            raise AssertionError

    with pytest.raises(MissingTeacherError, match=r"compares layers .layers/hidden, .* the teacher is a Silent"):
        trainer_of(tmp_path, teacher=Silent())


def test_a_student_without_blocks(tmp_path):
    student = torch.nn.Linear(2, 2)
    with pytest.raises(UnsupportedModelError, match="Linear has no list of blocks"):
        trainer_of(tmp_path, student=student, head=trainer_of(tmp_path).head)


def test_reentrant_checkpointing_is_refused_in_the_constructor(tmp_path):
    with pytest.raises(ConfigurationError, match=r"BertForSequenceClassification checkpoints .* use_reentrant=True"):
        trainer_of(tmp_path, activation_checkpointing=True, activation_checkpointing_kwargs={"use_reentrant": True})


def test_a_teacher_that_reads_other_tokens(tmp_path):
    rows = [{**row, "teacher_input_ids": row["input_ids"]} for row in rows_for("single_label")]
    with pytest.raises(ConfigurationError, match=r"compares layers token by token .* \['teacher_input_ids'\]"):
        trainer_of(tmp_path, rows=rows).train()


def test_a_model_that_is_made_anew_out_of_its_state(tmp_path, monkeypatch):
    """Asked of a trainer that is there already, since Accelerate shards on no CPU."""
    trainer = trainer_of(tmp_path)
    trainer._readers = ()
    monkeypatch.setattr(
        AcceleratorState, "fsdp_plugin", SimpleNamespace(cpu_ram_efficient_loading=True), raising=False
    )
    with pytest.raises(
        ConfigurationError, match=r"learned parts \(layers/hidden_1_2, .* cpu_ram_efficient_loading=True"
    ):
        trainer._bind()


def test_layers_that_are_split_over_processes(tmp_path, monkeypatch):
    trainer = trainer_of(tmp_path)
    trainer._readers = ()
    monkeypatch.setattr(trainer, "get_tp_size", lambda: 2)
    with pytest.raises(ConfigurationError, match="split over processes by tensor parallelism of 2"):
        trainer._bind()


def test_a_tokenizer_of_the_teachers_own(tmp_path):
    with pytest.raises(ConfigurationError, match=r"token by token \(layers/hidden, .* a TokenizersBackend, the"):
        DistillationTrainer(
            model=model_of("bert", 2),
            teacher=model_of("bert", 4),
            objective=with_logits(),
            args=arguments(tmp_path, temperature=2.0, alpha=0.5),
            teacher_processing_class=word_tokenizer("a", "b"),
        )


def test_two_objectives_of_layers_and_one_name(tmp_path):
    """Each term has parts of its own, also where they read the same layer."""
    terms = {"a": (1.0, HiddenStateTerm()), "b": (1.0, HiddenStateTerm(distance=cosine_distance))}
    trainer = trainer_of(tmp_path, objective=Objective(terms))
    assert set(trainer._readers[0].parts) == {"a_1_2", "a_2_4", "b_1_2", "b_2_4"}

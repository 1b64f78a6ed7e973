"""Students that train adapters of PEFT alone."""

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification, LoraConfig, PromptTuningConfig, TaskType, get_peft_model

from hf_distill import check_invariances
from hf_distill.errors import LengthMismatchError
from tests.gradients import GradientRecorder, relative_difference
from tests.reference import reference_gradients
from tests.tiny_models import llama, model_for, rows_for
from tests.tiny_trainers import trainer_for


# PEFT 0.21 reads a property that Transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TARGETS = {"causal": ["q_proj", "v_proj"], "seq2seq": ["q", "v"]}


def adapted(task, **config):
    torch.manual_seed(0)
    return get_peft_model(
        model_for(task, 1),
        LoraConfig(r=2, target_modules=TARGETS.get(task, ["query", "value"]), init_lora_weights=False, **config),
    )


@pytest.mark.parametrize("task", ["single_label", "tokens", "answers", "masked", "causal", "seq2seq"])
def test_the_adapter_learns_alone(tmp_path, task):
    student = adapted(task)
    trainer = trainer_for(tmp_path, task, student=student, eval_dataset=rows_for(task))
    before = {name: value.clone() for name, value in student.state_dict().items()}
    assert check_invariances(trainer).held
    trainer.train()
    moved = {name for name, value in student.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all("lora_" in name for name in moved)
    assert "eval_loss/soft" in trainer.evaluate()


def test_its_gradient_is_that_of_the_formula(tmp_path):
    """By the chain rule from the gradient of the merged weight W + s · B · A: ∂A = s · Bᵀ · ∂W, ∂B = s · ∂W · Aᵀ."""
    recorder, rows = GradientRecorder(), rows_for("single_label")
    student = adapted("single_label").double()
    trainer_for(
        tmp_path, student=student, teacher=model_for("single_label", 2).double(), callbacks=[recorder],
        learning_rate=0.0, max_steps=1, per_device_train_batch_size=2, gradient_accumulation_steps=4,
    ).train()  # fmt: skip
    layers = {name: module for name, module in student.named_modules() if hasattr(module, "lora_A")}
    parts = {
        name: (layer.lora_A.default.weight.detach(), layer.lora_B.default.weight.detach(), layer.scaling["default"])
        for name, layer in layers.items()
    }
    merged = student.merge_and_unload().requires_grad_(True)
    teacher = model_for("single_label", 2).double().eval()
    _, gradients = reference_gradients(merged, teacher, "single_label", rows, 3.0, 0.3)
    expected = {}
    for name, (a, b, scale) in parts.items():
        whole = gradients[f"{name.removeprefix('base_model.model.')}.weight"]
        expected[f"{name}.lora_A.default.weight"] = scale * b.T @ whole
        expected[f"{name}.lora_B.default.weight"] = scale * whole @ a.T
    assert relative_difference(recorder.steps[0], expected) < 1e-6


def test_a_checkpoint_holds_the_adapter_and_resumes(tmp_path):
    config = {"task_type": TaskType.SEQ_CLS}
    model_for("single_label", 1).save_pretrained(tmp_path / "base")
    runs = {}
    for name in ("whole", "cut"):
        student = adapted("single_label", **config)
        student.base_model.model.name_or_path = str(tmp_path / "base")
        trainer = trainer_for(tmp_path / name, student=student, save_strategy="steps", save_steps=1, max_steps=2)
        trainer.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-1") if name == "cut" else None)
        runs[name] = {key: value.clone() for key, value in student.state_dict().items()}
    assert all(torch.equal(value, runs["cut"][name]) for name, value in runs["whole"].items())
    files = {path.name for path in (tmp_path / "whole" / "checkpoint-2").iterdir()}
    assert "adapter_model.safetensors" in files and "model.safetensors" not in files
    student.save_pretrained(tmp_path / "adapter")
    loaded = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapter", num_labels=3)
    inputs = torch.tensor([[5, 6, 7]])
    assert torch.allclose(loaded.eval()(inputs).logits, student.eval()(inputs).logits)


def test_soft_prompts_of_a_language_model_are_positions_of_their_own(tmp_path):
    student = get_peft_model(llama(), PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3))
    with pytest.raises(LengthMismatchError, match=r"student's outputs have the shape \(4, 12, 40\).*\(4, 9\)"):
        trainer_for(tmp_path, "causal", student=student).train()

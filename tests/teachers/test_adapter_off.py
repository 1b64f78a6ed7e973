"""A student of PEFT whose teacher is the model below its adapter."""

import copy
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model

from hf_distill import AdapterOffTeacher, HiddenStateTerm, Objective, check_invariances, head_of, preflight_report
from hf_distill.errors import ConfigurationError, MissingInputError, MissingTeacherError, UnsupportedModelError
from tests.gradients import ALPHA, TEMPERATURE, GradientRecorder, relative_difference
from tests.reference import reference_gradients
from tests.slow_cases import slow_but
from tests.test_adapters import adapted
from tests.test_gradient_equality import CHECKPOINTING
from tests.tiny_models import PaddingCollator, bert, model_for, rows_for
from tests.tiny_trainers import loss_logs, trainer_for


# PEFT 0.21 reads a property that Transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TASKS = ("single_label", "tokens", "answers", "masked", "causal", "seq2seq")
SPLITS = {
    "one batch of 8": {},
    "4 batches of 2, padded further": {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "data_collator": PaddingCollator(5),
    },
    "checkpointed": {CHECKPOINTING: True},
}


def met(student):
    teacher = AdapterOffTeacher()
    teacher.meet(student, head_of(student))
    return teacher


def with_dropout():
    model = bert(layers=2, num_labels=3, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    config = LoraConfig(r=2, target_modules=["query"], init_lora_weights=False, lora_dropout=0.5)
    return get_peft_model(model, config).train()


@pytest.mark.parametrize("task", TASKS)
def test_answers_as_the_model_did_before_it_was_adapted(task):
    batch = PaddingCollator()(rows_for(task))
    teacher = met(adapted(task).train())
    model = model_for(task, 1).eval()
    names = {"input_ids", "attention_mask"}
    head = head_of(model)
    with torch.no_grad():
        derived = head.derived_inputs(model, batch)
        outputs = model(**{name: value for name, value in batch.items() if name in names}, **derived)
    answers = teacher.signals(batch)
    assert torch.equal(answers.logits, head.logits(outputs, batch))
    assert not answers.logits.requires_grad and not answers.logits.is_inference()
    assert "labels" not in teacher.input_names and names <= teacher.input_names


@pytest.mark.parametrize("task", slow_but(["single_label", "causal"], TASKS))
@pytest.mark.parametrize("split", SPLITS)
def test_the_gradient_is_that_of_a_copy_without_the_adapter(tmp_path, task, split):
    recorder = GradientRecorder()
    options = {"per_device_train_batch_size": 8, **SPLITS[split]}
    trainer_for(
        tmp_path, task, student=adapted(task).double(), teacher=AdapterOffTeacher(), callbacks=[recorder],
        learning_rate=0.0, max_steps=1, **options,
    ).train()  # fmt: skip
    student, base = adapted(task).double().train(), model_for(task, 1).double().eval()
    _, expected = reference_gradients(student, base, task, rows_for(task), TEMPERATURE, ALPHA)
    assert relative_difference(recorder.steps[0], expected) < 1e-6


def test_modules_that_are_trained_as_copies_answer_by_the_original(tmp_path):
    """PEFT trains a copy of the classifier where the task is sequence classification."""
    student = adapted("single_label", task_type=TaskType.SEQ_CLS)
    batch = PaddingCollator()(rows_for("single_label"))
    trainer = trainer_for(tmp_path, student=student, teacher=AdapterOffTeacher(), learning_rate=0.1)
    before = trainer.teacher.signals(batch).logits
    classifier = student.base_model.model.classifier
    start = classifier.modules_to_save["default"].weight.clone()
    trainer.train()
    assert not torch.equal(classifier.modules_to_save["default"].weight, start)
    assert torch.equal(trainer.teacher.signals(batch).logits, before)


def state(model):
    modes = [module.training for module in model.modules()]
    adapters = [module.disable_adapters for module in model.modules() if hasattr(module, "disable_adapters")]
    return modes, adapters, [weight.requires_grad for weight in model.parameters()]


def test_the_student_is_left_as_it_was_after_an_error_too():
    student = with_dropout()
    student.base_model.model.bert.embeddings.eval()
    frozen = next(weight for name, weight in student.named_parameters() if "lora_A" in name)
    frozen.requires_grad_(False)
    before, batch = state(student), PaddingCollator()(rows_for("single_label"))
    assert True in before[0] and False in before[0] and True in before[2]
    teacher, random_state = met(student), torch.get_rng_state()
    assert torch.equal(teacher.signals(batch).logits, teacher.signals(batch).logits)
    assert torch.equal(random_state, torch.get_rng_state())
    assert state(student) == before
    with pytest.raises(MissingInputError, match="reads 'input_ids'"):
        teacher.signals({"pixels": torch.zeros(1)})
    handle = student.base_model.model.classifier.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        teacher.signals(batch)
    handle.remove()
    assert state(student) == before
    assert not torch.equal(student(batch["input_ids"]).logits, student(batch["input_ids"]).logits)


def test_an_adapter_that_is_off_stays_off():
    student = with_dropout()
    with student.disable_adapter():
        before = state(student)
        met(student).signals(PaddingCollator()(rows_for("single_label")))
        assert state(student) == before


def test_the_student_learns_and_the_teacher_does_not_move(tmp_path):
    student = adapted("single_label", lora_dropout=0.1)
    rows = rows_for("single_label")
    trainer = trainer_for(
        tmp_path, student=student, teacher=AdapterOffTeacher(), alpha=0, max_steps=60, eval_dataset=rows,
        learning_rate=3e-2, report_agreement=True,
    )  # fmt: skip
    before = {name: value.clone() for name, value in student.state_dict().items()}
    report = check_invariances(trainer)
    assert all(check.held for check in report.checks), str(report)
    assert preflight_report(trainer).memory.teacher == 0
    batch = PaddingCollator()(rows)
    answers = trainer.teacher.signals(batch).logits
    soft = trainer.evaluate()["eval_loss/soft"]
    trainer.train()
    assert student.training
    assert trainer.evaluate()["eval_loss/soft"] < 0.3 * soft
    moved = {name for name, value in student.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all("lora_" in name for name in moved)
    assert torch.equal(trainer.teacher.signals(batch).logits, answers)


def test_follows_a_student_that_is_made_anew(tmp_path):
    trainer = trainer_for(tmp_path, model_init=lambda: adapted("single_label"), teacher=AdapterOffTeacher())
    first = trainer.model
    trainer.train()
    assert trainer.model is not first
    assert trainer.teacher.model is trainer.model


def test_may_be_one_of_several(tmp_path):
    trainer = trainer_for(
        tmp_path, "causal", student=adapted("causal"), teacher=[AdapterOffTeacher(), model_for("causal", 2)]
    )
    report = check_invariances(trainer)
    assert all(check.held for check in report.checks), str(report)
    memory = preflight_report(trainer).memory
    assert memory.teacher == sum(4 * weight.numel() for weight in model_for("causal", 2).parameters())
    trainer.train()
    assert loss_logs(trainer)[-1]["loss/soft"] > 0


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_weights_that_are_trained_in_place(tmp_path, bias):
    number = {"all": r"\d+", "lora_only": "2"}[bias]
    with pytest.raises(
        ConfigurationError, match=rf"trains {number} weights that answer with its adapter off too \(fi"
    ):
        trainer_for(tmp_path, student=adapted("single_label", bias=bias), teacher=AdapterOffTeacher())


def test_a_student_of_a_learnt_prompt(tmp_path):
    """With the prompt off, PEFT would still answer by the trained copy of the classifier."""
    config = PromptTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=2)
    student = get_peft_model(model_for("single_label", 1), config)
    with pytest.raises(UnsupportedModelError, match="PeftModelForSequenceClassification has none in its layers"):
        trainer_for(tmp_path, student=student, teacher=AdapterOffTeacher())


def test_a_student_without_an_adapter(tmp_path):
    with pytest.raises(UnsupportedModelError, match="and BertForSequenceClassification has none in"):
        trainer_for(tmp_path, teacher=AdapterOffTeacher())


@pytest.mark.parametrize("kind", [DistributedType.FSDP, DistributedType.DEEPSPEED])
def test_a_student_that_is_sharded(kind):
    with pytest.raises(ConfigurationError, match=r"apart from its own forward, and .*shards the student's weights"):
        met(copy.deepcopy(adapted("single_label"))).prepare(SimpleNamespace(distributed_type=kind))


def test_a_student_that_was_loaded_in_shards():
    teacher = met(copy.deepcopy(adapted("single_label")))
    teacher.is_sharded = True
    with pytest.raises(ConfigurationError, match="its DistributedConfig shards the student's weights"):
        teacher.prepare(SimpleNamespace(distributed_type=DistributedType.MULTI_CPU))


def test_layers_are_read_for_one_of_the_two_alone(tmp_path):
    options = {"teacher": AdapterOffTeacher(), "objective": Objective({"hidden": (1.0, HiddenStateTerm())})}
    with pytest.raises(MissingTeacherError, match="the teacher, a AdapterOffTeacher, is the student itself"):
        trainer_for(tmp_path, student=adapted("single_label"), **options)


def test_mixed_precision_stays_where_another_student_is_met(tmp_path):
    trainer = trainer_for(tmp_path, student=adapted("single_label"), teacher=AdapterOffTeacher(), bf16=True)
    trainer.teacher.meet(adapted("single_label"), trainer.head)
    batch = PaddingCollator()(rows_for("single_label"))
    assert trainer.teacher.signals(batch).logits.dtype == torch.bfloat16

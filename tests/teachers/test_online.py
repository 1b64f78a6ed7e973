"""A teacher that runs beside the student."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    SpeechEncoderDecoderConfig,
    SpeechEncoderDecoderModel,
)

from hf_distill.errors import MissingInputError, UntrainedTeacherError
from hf_distill.heads import MaskedLMHead, SingleLabelHead, head_of
from hf_distill.teachers import OnlineTeacher
from tests.tiny_models import HEADS, SIZES, VOCAB_SIZE, PaddingCollator, bert, listener, llama, model_for, rows_for
from tests.tiny_trainers import loss_logs, trainer_for


def teacher_for(head, layers=2):
    model = model_for(head, layers)
    return OnlineTeacher(model, head_of(model))


@pytest.mark.parametrize("head", HEADS)
def test_answers_as_the_model_itself_without_its_labels(head):
    teacher, batch = teacher_for(head), PaddingCollator()(rows_for(head))
    signals = teacher.signals(batch)
    with torch.no_grad():
        outputs = model_for(head, 2).eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    assert torch.equal(signals.logits, teacher.head.logits(outputs, batch))
    assert signals.label_loss is None
    assert not signals.logits.requires_grad


def test_answers_for_the_positions_of_a_student_with_other_tokens():
    teacher, batch = teacher_for("causal"), PaddingCollator()(rows_for("causal"))
    own = teacher.signals(batch).logits
    positions = torch.tensor([[2, -1, 0, 1]]).expand(8, 4)
    apart = {f"teacher_{name}": batch[name] for name in ("input_ids", "attention_mask")}
    signals = teacher.signals({"input_ids": torch.zeros(8, 4).long(), "teacher_positions": positions, **apart})
    assert signals.logits.shape == (8, 4, VOCAB_SIZE)
    for position, theirs in ((0, 2), (2, 0), (3, 1)):
        assert torch.equal(signals.logits[:, position], own[:, theirs])
    student = torch.ones_like(signals.logits, requires_grad=True)
    (student * signals.logits).sum().backward()
    assert torch.equal(student.grad, signals.logits)


def test_is_frozen_and_deterministic():
    model = bert(layers=2, num_labels=3, hidden_dropout_prob=0.5)
    batch = PaddingCollator()(rows_for("single_label"))
    model.train()
    assert not torch.equal(model(batch["input_ids"]).logits, model(batch["input_ids"]).logits)
    teacher = OnlineTeacher(model, SingleLabelHead())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(teacher.signals(batch).logits, teacher.signals(batch).logits)


@pytest.mark.parametrize("part", ["", "bert.encoder"])
def test_leaves_train_mode_before_it_answers(part):
    model = bert(layers=2, num_labels=3, hidden_dropout_prob=0.5)
    teacher, batch = OnlineTeacher(model, SingleLabelHead()), PaddingCollator()(rows_for("single_label"))
    expected = teacher.signals(batch).logits
    model.get_submodule(part).train()
    assert torch.equal(teacher.signals(batch).logits, expected)
    assert not any(module.training for module in model.modules())


def test_a_term_may_multiply_with_its_answers():
    """Answers of torch.inference_mode cannot be saved for the backward pass."""
    logits = teacher_for("single_label").signals(PaddingCollator()(rows_for("single_label"))).logits
    student = torch.ones_like(logits, requires_grad=True)
    (student * logits).sum().backward()
    assert torch.equal(student.grad, logits)


def test_input_names_are_the_models_own_without_labels():
    assert {"input_ids", "attention_mask", "token_type_ids"} <= teacher_for("single_label").input_names
    assert "labels" not in teacher_for("single_label").input_names
    assert not {"start_positions", "end_positions", "labels"} & teacher_for("answers").input_names
    assert "kwargs" not in teacher_for("causal").input_names


def test_keeps_no_cache():
    """A cache of keys and values would cost memory and nobody would read it."""
    model = llama(layers=2)
    model.config.use_cache = True
    calls = []
    model.register_forward_hook(lambda module, args, kwargs, outputs: calls.append(outputs), with_kwargs=True)
    OnlineTeacher(model, head_of(model)).signals(PaddingCollator()(rows_for("causal")))
    assert calls[0].past_key_values is None


def test_a_batch_without_its_main_input():
    with pytest.raises(MissingInputError, match=r"BertFor\w+ reads 'input_ids', and the batch has only \['pixels'\]"):
        teacher_for("single_label").signals({"pixels": torch.zeros(2, 3)})


def test_a_main_input_that_has_several_names():
    decoding = {**SIZES, "num_hidden_layers": 1, "is_decoder": True, "add_cross_attention": True}
    configs = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(listener().config, BertConfig(**decoding))
    configs.decoder_start_token_id, configs.pad_token_id = 1, 0
    model = SpeechEncoderDecoderModel(config=configs)
    teacher = OnlineTeacher(model, head_of(model))
    sounds, labels = torch.randn(2, 40), torch.randint(3, 20, (2, 4))
    assert teacher.signals({"input_values": sounds, "labels": labels}).logits.shape[:2] == labels.shape
    with pytest.raises(MissingInputError, match="SpeechEncoderDecoderModel reads 'inputs', and the batch has only"):
        teacher.signals({"attention_mask": torch.ones(2, 40), "labels": labels})


def test_embeddings_stand_in_for_tokens():
    teacher, batch = teacher_for("single_label"), PaddingCollator()(rows_for("single_label"))
    embedded = teacher.model.get_input_embeddings()(batch["input_ids"])
    by_embeddings = {"inputs_embeds": embedded, "attention_mask": batch["attention_mask"]}
    assert torch.allclose(teacher.signals(by_embeddings).logits, teacher.signals(batch).logits, atol=1e-6)


@pytest.mark.parametrize("head, auto_head", [("single_label", SingleLabelHead()), ("masked", MaskedLMHead())])
def test_loaded_by_path(tmp_path, head, auto_head):
    model = model_for(head, 2)
    model.bfloat16().save_pretrained(tmp_path)
    teacher = OnlineTeacher.from_pretrained(tmp_path, auto_head)
    assert type(teacher.model) is type(model)
    assert teacher.model.dtype == torch.bfloat16
    batch = PaddingCollator()(rows_for(head))
    assert torch.equal(teacher.signals(batch).logits, OnlineTeacher(model, auto_head).signals(batch).logits)


@pytest.mark.parametrize("saved, missing", [(BertModel, "2 'classifier"), (BertForMaskedLM, "4 'bert.pooler")])
def test_a_checkpoint_without_the_head(tmp_path, saved, missing):
    bert(saved, layers=2).save_pretrained(tmp_path)
    count, first = missing.split()
    with pytest.raises(
        UntrainedTeacherError,
        match=rf"no weights for {count} parameters of BertForSequenceClassification \(first: {first}",
    ) as error:
        OnlineTeacher.from_pretrained(str(tmp_path), SingleLabelHead())
    assert repr(str(tmp_path)) in str(error.value)
    assert isinstance(error.value, ValueError)


def test_a_checkpoint_with_tied_weights_is_whole(tmp_path):
    """The decoder of a masked language model is its embedding, and stands in the file once."""
    saved = bert(BertForMaskedLM, layers=2)
    saved.save_pretrained(tmp_path)
    loaded = OnlineTeacher.from_pretrained(tmp_path, MaskedLMHead()).model
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert torch.equal(loaded.get_output_embeddings().weight, saved.get_input_embeddings().weight)


@pytest.fixture
def bfloat16_accelerator():
    AcceleratorState._reset_state()
    yield Accelerator(cpu=True, mixed_precision="bf16")
    AcceleratorState._reset_state()


def test_follows_the_mixed_precision_of_the_trainer(bfloat16_accelerator):
    teacher, batch = teacher_for("single_label"), PaddingCollator()(rows_for("single_label"))
    full = teacher.signals(batch).logits
    seen = []
    teacher.model.classifier.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    teacher.prepare(bfloat16_accelerator)
    low = teacher.signals(batch).logits
    assert seen == [torch.bfloat16]
    assert torch.allclose(low.float(), full, atol=0.1) and not torch.equal(low.float(), full)


class Placed(nn.Module):
    """A teacher that remembers where it was sent."""

    main_input_name = "input_ids"
    device = torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.sent = []

    def to(self, device):
        self.sent.append(device)
        return self

    def forward(self, input_ids):
        return {"logits": torch.zeros(len(input_ids), 3)}


@pytest.mark.parametrize(
    "attributes, moves",
    [({}, True), ({"is_quantized": True}, False), ({"hf_device_map": {"": "cpu"}}, False)],
    ids=["plain", "quantised", "spread over devices"],
)
def test_moves_to_the_student_unless_it_has_a_place(attributes, moves):
    model = Placed()
    for name, value in attributes.items():
        setattr(model, name, value)
    teacher, accelerator = OnlineTeacher(model, SingleLabelHead()), Accelerator(cpu=True)
    teacher.prepare(accelerator)
    assert model.sent == ([accelerator.device] if moves else [])
    assert teacher.signals({"input_ids": torch.zeros(2, 4)}).logits.shape == (2, 3)


@pytest.mark.parametrize("place", ["cpu", "disk"])
def test_stays_as_it_was_loaded(tmp_path, place):
    """By Transformers' own arguments: in bfloat16, on the CPU, or with its blocks on disk until they are needed."""
    model = model_for("single_label", 2)
    model.save_pretrained(tmp_path / "teacher")
    parts = {"bert.embeddings": "cpu", "bert.encoder": "disk", "bert.pooler": "cpu", "classifier": "cpu"}
    loaded = type(model).from_pretrained(
        tmp_path / "teacher",
        dtype=torch.bfloat16,
        device_map=parts if place == "disk" else "cpu",
        offload_folder=tmp_path / "offloaded",
    )
    weight = loaded.bert.encoder.layer[0].output.dense.weight
    assert weight.device.type == ("meta" if place == "disk" else "cpu")
    trainer = trainer_for(tmp_path, teacher=loaded)
    trainer.train()
    batch = PaddingCollator()(rows_for("single_label"))
    logits = trainer.teacher.signals(batch).logits
    assert logits.dtype == torch.bfloat16
    expected = OnlineTeacher(model, head_of(model)).signals(batch).logits
    assert torch.allclose(logits.float(), expected, atol=0.05)
    kept = loaded.bert.encoder.layer[0].output.dense.weight
    assert (kept.device, kept.dtype) == (weight.device, torch.bfloat16)
    assert all(log["loss/soft"] > 0 for log in loss_logs(trainer))


def test_is_registered_with_no_accelerator():
    """Accelerate would save it in checkpoints and count it as the model."""
    accelerator = Accelerator(cpu=True)
    teacher_for("single_label").prepare(accelerator)
    assert accelerator._models == []

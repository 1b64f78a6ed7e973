"""A model built anew from a configuration and tensors."""

import copy

import pytest
import torch
from transformers import LlamaForCausalLM

from hf_distill.errors import UnsupportedModelError
from hf_distill.students.rebuild import empty_model, rebuilt, tensors_of
from tests import tiny_models
from tests.students import teachers
from tests.students.teachers import TEACHERS, inputs_of, outputs_of


def test_dtypes_and_attention_are_the_teachers(tmp_path):
    teacher = teachers.llama(2).to(torch.bfloat16)
    teacher.model.norm.to(torch.float32)
    teacher.set_attn_implementation("eager")
    made = rebuilt(teacher, teacher.config, tensors_of(teacher))
    assert {name: tensor.dtype for name, tensor in made.named_parameters()} == {
        name: tensor.dtype for name, tensor in teacher.named_parameters()
    }
    assert made.config._attn_implementation == "eager"


def test_half_precision_survives_saving(tmp_path):
    teacher = teachers.llama(2)
    teacher.save_pretrained(tmp_path / "teacher")
    teacher = LlamaForCausalLM.from_pretrained(tmp_path / "teacher", dtype=torch.bfloat16)
    made = rebuilt(teacher, teacher.config, tensors_of(teacher))
    made.save_pretrained(tmp_path / "copy")
    loaded = LlamaForCausalLM.from_pretrained(tmp_path / "copy")
    inputs = inputs_of(teacher)
    assert loaded.dtype == torch.bfloat16
    said = [outputs_of(model, inputs)["logits.0"] for model in (made, loaded, teacher)]
    assert torch.equal(said[0], said[1])
    assert torch.equal(said[0], said[2])


def test_a_frozen_teacher_in_training_gives_a_student_that_can_be_trained():
    teacher = tiny_models.bert().train().requires_grad_(False)
    made = rebuilt(teacher, teacher.config, tensors_of(teacher))
    assert not made.training
    assert all(parameter.requires_grad for parameter in made.parameters())
    assert teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_the_way_it_generates_is_the_teachers():
    teacher = teachers.llama(1)
    teacher.generation_config.max_new_tokens = 3
    made = rebuilt(teacher, teacher.config, tensors_of(teacher))
    assert made.generation_config.max_new_tokens == 3
    assert made.generation_config is not teacher.generation_config


def test_what_does_not_fit_is_refused():
    teacher = tiny_models.bert(layers=2)
    tensors = tensors_of(teacher)
    tensors["classifier.weight"] = torch.zeros(2, 3)
    tensors["more"] = tensors.pop("classifier.bias")
    expected = (
        r"BertForSequenceClassification cannot be cut like this: nothing of the teacher's fits classifier\.bias; the "
        r"student has no place for more; classifier\.weight is \(2, 3\) in the teacher and \(2, 16\) in the student"
    )
    with pytest.raises(UnsupportedModelError, match=expected):
        rebuilt(teacher, teacher.config, tensors)
    with pytest.raises(UnsupportedModelError, match=r"; and \d+ more\. "):
        rebuilt(teacher, TEACHERS["bert"](1).config, tensors)


def test_weights_that_are_tied_in_name_only_are_refused():
    teacher = TEACHERS["bert"](1)
    teacher.cls.predictions.decoder.weight = torch.nn.Parameter(torch.zeros(40, 16))
    with pytest.raises(
        UnsupportedModelError, match=r"word_embeddings\.weight and .* are tied .* not equal in the teacher"
    ):
        rebuilt(teacher, teacher.config, tensors_of(teacher))


def test_a_configuration_that_builds_no_model_is_refused():
    teacher = TEACHERS["bert"](1)
    config = copy.deepcopy(teacher.config)
    config.num_attention_heads = 3
    with pytest.raises(UnsupportedModelError, match=r"BertForMaskedLM cannot be built .* hidden size \(16\)"):
        empty_model(teacher, config)


def test_an_empty_model_takes_no_memory_and_no_luck():
    teacher = TEACHERS["bert"](2)
    state = torch.get_rng_state()
    empty = empty_model(teacher, teacher.config, device="meta")
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert torch.equal(torch.get_rng_state(), state)

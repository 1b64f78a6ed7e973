"""What a student says of itself, and what nobody can make a student of."""

import json

import pytest
import torch
from transformers import AqlmConfig, AutoModelForSequenceClassification, BitsAndBytesConfig, GgufConfig
from transformers.quantizers.quantizer_aqlm import AqlmHfQuantizer
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer
from transformers.quantizers.quantizer_gguf import GgufHfQuantizer

import hf_distill
from hf_distill.errors import ConfigurationError, UnsupportedModelError
from hf_distill.students import student_from_teacher
from tests import tiny_models
from tests.students import teachers
from tests.students.teachers import TEACHERS, inputs_of, outputs_of


def test_without_any_wish_it_is_a_copy():
    teacher = tiny_models.bert(layers=2).eval()
    student = student_from_teacher(teacher)
    said = [outputs_of(model, inputs_of(teacher))["logits.0"] for model in (student, teacher)]
    assert torch.equal(*said)
    assert not {id(parameter) for parameter in student.parameters()} & {id(one) for one in teacher.parameters()}


def test_provenance_is_saved_with_the_student(tmp_path):
    teacher = tiny_models.bert(layers=4)
    teacher.save_pretrained(tmp_path / "teacher")
    teacher = AutoModelForSequenceClassification.from_pretrained(tmp_path / "teacher")
    teacher.config._commit_hash = "abc123"
    student = student_from_teacher(teacher, num_hidden_layers=2, intermediate_size=8)
    student.save_pretrained(tmp_path / "student")
    expected = {
        "teacher": {
            "name_or_path": str(tmp_path / "teacher"),
            "revision": "abc123",
            "model_class": "BertForSequenceClassification",
        },
        "hf_distill_version": hf_distill.__version__,
        "widths": {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 8},
        "units_chosen_by": "size of weights",
        "layers": {"layers": [0, 3]},
    }
    assert json.loads((tmp_path / "student" / "config.json").read_text())["student_of"] == expected
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    assert loaded.config.student_of == expected
    assert student.name_or_path == student.config.name_or_path == ""
    second = student_from_teacher(loaded, num_hidden_layers=1)
    assert second.config.student_of["teacher"]["student_of"] == expected
    assert second.config.student_of["layers"] == {"layers": [0]}


def test_all_cuts_at_once():
    teacher = teachers.llama(4)
    batch = inputs_of(teacher) | {"labels": inputs_of(teacher)["input_ids"]}
    student = student_from_teacher(
        teacher,
        num_hidden_layers=2,
        hidden_size=8,
        num_attention_heads=2,
        intermediate_size=5,
        importance_data=[batch],
    )
    assert student.config.student_of["units_chosen_by"] == "importance"
    config = student.config
    sizes = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.intermediate_size)
    assert sizes == (2, 8, 2, 5)
    student(**batch).loss.backward()
    assert all(parameter.grad is not None for parameter in student.parameters())


def test_faults_of_every_kind_are_told_at_once():
    with pytest.raises(ConfigurationError) as caught:
        student_from_teacher(
            TEACHERS["bert"](2),
            num_hidden_layers=3,
            hidden_size=20,
            embedding_size=4,
            vocabulary=["a"],
        )
    for part in (
        "num_hidden_layers=3, but the teacher has 2",
        "hidden_size=20, but the teacher has 16",
        "embedding_size=4 is asked for, but BertForMaskedLM has no projection",
        "vocabulary= is given without processing_class=",
    ):
        assert part in str(caught.value)


def test_importance_without_a_use_is_refused():
    with pytest.raises(ConfigurationError, match="importance_data= is given, but none of hidden_size, num_attention"):
        student_from_teacher(TEACHERS["bert"](2), num_hidden_layers=1, importance_data=[{}])


@pytest.mark.parametrize(
    ("quantizer", "advice"),
    [
        (GgufHfQuantizer(GgufConfig()), r"Load it with `quantization_config=GgufConfig\(dequantize=True\)`\."),
        (
            Bnb4BitHfQuantizer(BitsAndBytesConfig(load_in_4bit=True)),
            r"Call `dequantize\(\)` on it, or load it unquant",
        ),
        (AqlmHfQuantizer(AqlmConfig()), r"packed weights\. Load it unquantised\."),
    ],
)
def test_of_a_quantised_teacher_it_is_said_how_to_unpack_it(quantizer, advice):
    quantised = tiny_models.bert()
    quantised.hf_quantizer = quantizer
    with pytest.raises(UnsupportedModelError, match=rf"BertForSequenceClassification is quantised.* {advice}"):
        student_from_teacher(quantised)


def test_what_is_no_model_with_weights_is_refused():
    with pytest.raises(UnsupportedModelError, match="teacher= is a Linear and no PreTrainedModel"):
        student_from_teacher(torch.nn.Linear(2, 2))
    with pytest.raises(UnsupportedModelError, match="are not in memory"):
        student_from_teacher(tiny_models.bert().to("meta"))

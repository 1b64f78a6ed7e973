"""A narrower student: what does nothing can go without a trace, along the right axis of every tensor."""

import pytest
import torch
from transformers import (
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

from hf_distill.errors import ConfigurationError, UnsupportedModelError
from hf_distill.students import student_from_teacher
from hf_distill.students.width import KeptUnits, Widths, narrower_widths, widths_of, with_kept_units, with_widths
from hf_distill.students.width_families import FAMILIES
from tests import tiny_models
from tests.students import teachers
from tests.students.teachers import ENCODER, SPECIAL_IDS, TEACHERS, inputs_of, of, outputs_of


DECODER = {**ENCODER, **SPECIAL_IDS, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
NARROW = {
    "bert": lambda: tiny_models.bert(BertForSequenceClassification, 2).eval(),
    "roberta": lambda: of(RobertaForSequenceClassification, RobertaConfig, **ENCODER, num_hidden_layers=2),
    "electra": lambda: of(
        ElectraForSequenceClassification, ElectraConfig, **ENCODER, embedding_size=8, num_hidden_layers=2
    ),
    "electra without projection": lambda: of(
        ElectraForSequenceClassification, ElectraConfig, **ENCODER, embedding_size=16, num_hidden_layers=2
    ),
    "distilbert": lambda: of(
        DistilBertForSequenceClassification,
        DistilBertConfig,
        vocab_size=40,
        dim=16,
        n_heads=2,
        hidden_dim=24,
        n_layers=2,
    ),
    "vit": lambda: tiny_models.vision(ViTForImageClassification, ViTConfig, 2, num_labels=3, image_size=8).eval(),
    "llama": lambda: teachers.llama(2),
    "mistral": lambda: of(MistralForCausalLM, MistralConfig, **DECODER, head_dim=8),
    "qwen2": lambda: of(Qwen2ForCausalLM, Qwen2Config, **DECODER),
    "qwen3": lambda: of(Qwen3ForCausalLM, Qwen3Config, **DECODER, head_dim=8),
}
"""Without tied weights."""


def with_shadows(model):
    """The same function, twice as wide.

    Each hidden unit has a shadow that all write to and nobody reads, which leaves mean and variance as they are. Heads
    and neurons have shadows that nobody reads either.
    """
    family = FAMILIES[model.config.model_type]
    old = widths_of(model.config, family)
    wide = type(model)(with_widths(model.config, Widths(*(2 * size for size in vars(old).values()))))
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            widened = parameter
            for axis, size in enumerate(parameter.shape):
                if wide.get_parameter(name).shape[axis] == 2 * size:
                    is_read = name in linear and axis == 1
                    widened = torch.cat([widened, widened * (not is_read)], axis)
            wide.get_parameter(name).copy_(widened)
    return wide.eval()


@pytest.mark.parametrize("name", NARROW)
def test_shadows_go_without_a_trace(name):
    model = NARROW[name]()
    wide, inputs = with_shadows(model), inputs_of(model)
    said = outputs_of(model, inputs)["logits.0"]
    torch.testing.assert_close(outputs_of(wide, inputs)["logits.0"], said, rtol=1e-5, atol=1e-5)
    widths = widths_of(model.config, FAMILIES[model.config.model_type])
    shape = (widths.num_attention_heads, widths.num_key_value_heads, widths.intermediate_size)
    heads, key_value_heads, neurons = ([torch.arange(size)] * 2 for size in shape)
    kept = KeptUnits([torch.arange(widths.hidden_size)], heads, key_value_heads, neurons)
    student = with_kept_units(wide, widths, kept)
    assert student.num_parameters() == model.num_parameters()
    torch.testing.assert_close(outputs_of(student, inputs)["logits.0"], said, rtol=1e-5, atol=1e-5)


def weight_that_reads_neurons(model, layer):
    """The only one of a layer that turns 24 neurons into 16 hidden units."""
    hidden, neurons = (
        model.config.hidden_size,
        model.config.to_dict().get("hidden_dim") or model.config.intermediate_size,
    )
    return [parameter for parameter in model.parameters() if parameter.shape == (hidden, neurons)][layer]


def labelled(model):
    inputs = inputs_of(model)
    if model.can_generate():
        return inputs | {"labels": inputs["input_ids"]}
    return inputs | {"labels": torch.tensor([0, 1])}


@pytest.mark.parametrize("by", ["size of weights", "importance"])
@pytest.mark.parametrize("name", NARROW)
def test_dead_neurons_are_the_first_to_go(name, by):
    teacher = NARROW[name]()
    dead = torch.randperm(24)[:10]
    for layer in range(2):
        weight_that_reads_neurons(teacher, layer).data[:, (dead + layer) % 24] = 0
    data = [labelled(teacher)] if by == "importance" else None
    student = student_from_teacher(teacher, intermediate_size=14, importance_data=data)
    inputs = inputs_of(teacher)
    said = [outputs_of(model, inputs)["logits.0"] for model in (student, teacher)]
    torch.testing.assert_close(*said, rtol=1e-5, atol=1e-5)
    assert weight_that_reads_neurons(student, 0).shape[1] == 14


@pytest.mark.parametrize("by", ["size of weights", "importance"])
@pytest.mark.parametrize("silenced", ["output", "values"])
def test_heads_that_say_nothing_are_the_first_to_go(silenced, by):
    """Two of four groups of two queries, and of the others one query each."""
    teacher = teachers.llama(2, num_attention_heads=8, num_key_value_heads=4, head_dim=2)
    for layer in teacher.model.layers:
        attention = layer.self_attn
        attention.o_proj.weight.data.view(16, 8, 2)[:, [1, 6]] = 0
        if silenced == "output":
            attention.o_proj.weight.data.view(16, 8, 2)[:, [2, 3, 4, 5]] = 0
        else:
            attention.v_proj.weight.data.view(4, 2, 16)[[1, 2]] = 0
    data = [labelled(teacher)] if by == "importance" else None
    student = student_from_teacher(teacher, num_attention_heads=2, num_key_value_heads=2, importance_data=data)
    said = [outputs_of(model, inputs_of(teacher))["logits.0"] for model in (student, teacher)]
    torch.testing.assert_close(*said, rtol=1e-5, atol=1e-5)
    ours, theirs = (model.model.layers[0].self_attn for model in (student, teacher))
    assert torch.equal(ours.q_proj.weight.view(2, 2, 16), theirs.q_proj.weight.view(8, 2, 16)[[0, 7]])
    assert torch.equal(ours.k_proj.weight.view(2, 2, 16), theirs.k_proj.weight.view(4, 2, 16)[[0, 3]])


@pytest.mark.parametrize("name", NARROW)
def test_a_narrow_student_is_saved_and_loaded(name, tmp_path):
    teacher = NARROW[name]()
    extra = {"num_key_value_heads": 1} if hasattr(teacher.config, "num_key_value_heads") else {}
    sizes = {"hidden_size": 8, "num_attention_heads": 1} if name != "electra" else {}
    student = student_from_teacher(teacher, num_hidden_layers=1, intermediate_size=9, **sizes, **extra)
    assert all(getattr(student.config, name) == size for name, size in {**sizes, **extra}.items())
    student.save_pretrained(tmp_path)
    loaded = type(student).from_pretrained(tmp_path)
    said = [outputs_of(model, inputs_of(teacher))["logits.0"] for model in (loaded, student)]
    assert torch.equal(*said)


@pytest.mark.parametrize("by", ["size of weights", "importance"])
def test_hidden_units_that_nothing_touches_are_the_first_to_go(by):
    teacher = teachers.llama(2)
    used = [0, 3, 4, 5, 9, 11, 12, 15]
    unused = torch.tensor([unit for unit in range(16) if unit not in used])
    for name, parameter in teacher.named_parameters():
        if "norm" not in name:
            is_written = "o_proj" in name or "down_proj" in name
            parameter.data.index_fill_(0 if is_written else 1, unused, 0.0)
    data = [labelled(teacher)] if by == "importance" else None
    student = student_from_teacher(teacher, hidden_size=8, importance_data=data)
    assert torch.equal(student.model.embed_tokens.weight, teacher.model.embed_tokens.weight[:, used])
    assert student.config.head_dim == 4  # as in the teacher, not hidden_size / num_attention_heads


BERT = tiny_models.bert().config
LLAMA = teachers.llama(1).config


@pytest.mark.parametrize(
    ("config", "wanted", "expected"),
    [
        (BERT, {"hidden_size": 8}, Widths(8, 1, 1, 24)),
        (BERT, {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 5}, Widths(8, 1, 1, 5)),
        (LLAMA, {"num_attention_heads": 2}, Widths(16, 2, 2, 24)),
        (LLAMA, {"num_attention_heads": 2, "num_key_value_heads": 1}, Widths(16, 2, 1, 24)),
    ],
)
def test_what_is_not_asked_for_follows(config, wanted, expected):
    assert narrower_widths(config, FAMILIES[config.model_type], wanted) == (expected, [])


@pytest.mark.parametrize(
    ("teacher", "wanted", "messages"),
    [
        ("bert", {"hidden_size": 12}, [r"hidden_size=12 is no multiple of 8, the size of the teacher's heads"]),
        (
            "bert",
            {"num_attention_heads": 1, "intermediate_size": 30},
            [
                r"intermediate_size=30, but the teacher has 24: take 1 to 24",
                r"hidden_size=16 and num_attention_heads=1 .* than the teacher's 8, .* 2 heads, or hidden_size=8",
            ],
        ),
        ("llama", {"hidden_size": 9}, [r"num_attention_heads=4 does not divide hidden_size=9"]),
        (
            "llama",
            {"num_attention_heads": 1, "intermediate_size": 0},
            [
                r"intermediate_size=0, but the teacher has 24: take 1 to 24",
                r"num_attention_heads=1 cannot be shared among num_key_value_heads=2: .* at most the teacher's 2",
            ],
        ),
        ("llama", {"num_key_value_heads": 1}, [r"num_attention_heads=4 cannot be shared among num_key_value_heads=1"]),
        ("electra", {"hidden_size": 8}, [r"hidden_size=8 is also the teacher's embedding_size"]),
    ],
)
def test_impossible_widths_are_refused_all_at_once(teacher, wanted, messages):
    for message in messages:
        with pytest.raises(ConfigurationError, match=message):
            student_from_teacher(TEACHERS[teacher](1), **wanted)


def test_other_architectures_are_refused_by_name():
    with pytest.raises(UnsupportedModelError, match=r"GPT2LMHeadModel has model_type 'gpt2', .* bert, roberta"):
        student_from_teacher(TEACHERS["gpt2"](1), intermediate_size=8)
    crossed = tiny_models.bert(is_decoder=True, add_cross_attention=True)
    with pytest.raises(UnsupportedModelError, match="BertForSequenceClassification has cross-attention"):
        student_from_teacher(crossed, intermediate_size=8)

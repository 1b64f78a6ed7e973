import pytest
import torch
from transformers import BertForMaskedLM, T5Config, T5ForConditionalGeneration

from hf_distill import suggest_student
from hf_distill.errors import ConfigurationError
from hf_distill.students import Budget, student_from_teacher
from hf_distill.students.budget import latencies, weight_bytes
from tests.tiny_models import bert, llama


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("3x faster", Budget("seconds", factor=3.0)),
        (" 1.5x  smaller", Budget("bytes", factor=1.5)),
        ("10MB", Budget("bytes", limit=10e6)),
        ("2 gb", Budget("bytes", limit=2e9)),
        ("5ms", Budget("seconds", limit=5e-3)),
        ("0.5 s", Budget("seconds", limit=0.5)),
    ],
)
def test_a_budget_in_words(text, budget):
    assert Budget.parse(text) == budget


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("small", "budget='small' is not understood"),
        ("10 parsecs", "is not understood"),
        ("9" * 400 + "MB", "no finite number above 0"),
        ("0MB", "no finite number above 0"),
        ("1.2.3ms", "no finite number above 0"),
        ("1x faster", "no less than the teacher takes"),
    ],
)
def test_refuses_other_words(text, message):
    with pytest.raises(ConfigurationError, match=message):
        Budget.parse(text)


@pytest.mark.parametrize("make", [lambda: bert(layers=4, hidden_size=32, num_attention_heads=4), lambda: llama(4)])
@pytest.mark.parametrize("factor", [1.5, 2.5, 4.0])
def test_the_largest_that_fits_a_size(make, factor):
    teacher = make()
    found = suggest_student(teacher, f"{factor}x smaller")
    student = student_from_teacher(teacher, **found.sizes)
    assert weight_bytes(student) == found.measured <= found.limit == weight_bytes(teacher) / factor
    assert found.teacher == weight_bytes(teacher)
    # Of every width all depths, in a plain loop.
    tried = {(each["hidden_size"], each["intermediate_size"]) for each, _ in found.tried if "hidden_size" in each}
    widths = [{}, *({"hidden_size": hidden, "intermediate_size": neurons} for hidden, neurons in tried)]
    sizes = [
        weight_bytes(student_from_teacher(teacher, num_hidden_layers=layers, **width))
        for width in widths
        for layers in range(1, 5)
        if width or layers < 4
    ]
    assert found.measured == max(size for size in sizes if size <= found.limit)


def test_of_several_stacks_each_gives_its_share():
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "vocab_size": 40}
    teacher = T5ForConditionalGeneration(T5Config(num_layers=6, num_decoder_layers=3, **sizes))
    found = suggest_student(teacher, "1.5x smaller")
    assert found.sizes["num_hidden_layers"].keys() == {"encoder", "decoder"}
    assert weight_bytes(student_from_teacher(teacher, **found.sizes)) == found.measured


@pytest.mark.slow
def test_a_budget_of_time_is_measured():
    teacher = bert(BertForMaskedLM, 8, hidden_size=64, intermediate_size=256)
    batch = {"input_ids": torch.ones(8, 64, dtype=torch.long)}
    found = suggest_student(teacher, "2x faster", batch)
    assert found.measured <= found.limit == found.teacher / 2
    assert found.sizes
    assert str(found).count(" ms") == 3
    generous = suggest_student(teacher, "60s", batch)
    assert generous.sizes == {"num_hidden_layers": 7}


def test_models_take_turns_and_keep_their_mode():
    teacher = bert(BertForMaskedLM, 6, hidden_size=64, intermediate_size=512).train()
    student = student_from_teacher(teacher, num_hidden_layers=1)
    slow, fast = latencies((teacher, student), {"input_ids": torch.ones(8, 64, dtype=torch.long)})
    assert slow > fast > 0
    assert teacher.training and not student.training


def test_refuses_what_nothing_fits():
    with pytest.raises(ConfigurationError, match=r"nothing fits a budget of 1e-06 MB: the smallest student .* takes"):
        suggest_student(bert(layers=2), Budget("bytes", limit=1.0))
    with pytest.raises(ConfigurationError, match="a budget of time needs a `batch`"):
        suggest_student(bert(layers=2), "2x faster")

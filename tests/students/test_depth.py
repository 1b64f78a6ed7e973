"""A shorter student: its layers compute what the teacher's did, all else is the teacher's, and it loads elsewhere."""

import copy
import subprocess
import sys

import pytest
import torch
from transformers import BigBirdConfig, BigBirdModel, GPT2Config, GPT2LMHeadModel, GPTNeoConfig, GPTNeoModel

from hf_distill.errors import UnsupportedModelError
from hf_distill.students import student_from_teacher
from hf_distill.students.depth import kept_layers
from hf_distill.students.stacks import Stack, stacks_of
from tests.students import teachers
from tests.students.teachers import TEACHERS, inputs_of, outputs_of, tied_names


@pytest.fixture(params=TEACHERS)
def teacher(request):
    return TEACHERS[request.param](4)


def halved(teacher):
    return student_from_teacher(
        teacher, num_hidden_layers={stack.name: stack.size // 2 for stack in stacks_of(teacher)}
    )


def test_a_whole_copy_says_exactly_what_the_teacher_says(teacher):
    inputs = inputs_of(teacher)
    student = student_from_teacher(teacher, layers={stack.name: range(stack.size) for stack in stacks_of(teacher)})
    expected, found = outputs_of(teacher, inputs), outputs_of(student, inputs)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    apart = {parameter.data_ptr() for parameter in student.parameters()}
    assert not apart & {parameter.data_ptr() for parameter in teacher.parameters()}


def recorded(teacher, path, inputs):
    """For each layer, what it was called with and what it returned."""
    calls, handles = {}, []

    def hook(index):
        def keep(module, args, kwargs, output):
            kwargs = {name: value for name, value in kwargs.items() if name != "cache"}  # XLM has one always
            calls[index] = copy.deepcopy((args, kwargs)), copy.deepcopy(output)

        return keep

    for index, layer in enumerate(teacher.get_submodule(path)):
        handles.append(layer.register_forward_hook(hook(index), with_kwargs=True))
    outputs_of(teacher, inputs)
    for handle in handles:
        handle.remove()
    return calls


def first(output):
    return output[0] if isinstance(output, tuple) else output


def test_each_kept_layer_computes_what_it_did_in_the_teacher(teacher):
    student = halved(teacher)
    for stack in stacks_of(teacher):
        kept = {4: (0, 3), 6: (0, 3, 5)}[stack.size]
        for path in stack.lists:
            calls = recorded(teacher, path, inputs_of(teacher))
            layers = student.get_submodule(path)
            assert len(layers) == len(kept)
            for place, layer in enumerate(kept):
                (args, kwargs), expected = calls[layer]
                with torch.no_grad():
                    found = first(layers[place](*args, **kwargs))
                torch.testing.assert_close(found, first(expected), rtol=1e-6, atol=1e-6)
    different = outputs_of(student, inputs_of(teacher)), outputs_of(teacher, inputs_of(teacher))
    name = next(name for name in different[0] if name.startswith("logits"))
    assert not torch.equal(different[0][name], different[1][name])


def test_all_that_is_no_layer_is_the_teachers(teacher):
    student = halved(teacher)
    inside = tuple(f"{path}." for stack in stacks_of(teacher) for path in stack.lists)
    ours, theirs = (
        {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(inside)}
        for model in (student, teacher)
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert tied_names(student) == [group for group in tied_names(teacher) if not group[0].startswith(inside)]


def test_the_teacher_and_the_random_state_stay_as_they_were(teacher):
    before = copy.deepcopy(teacher.state_dict()), teacher.config.to_dict(), torch.get_rng_state()
    halved(teacher)
    assert all(torch.equal(teacher.state_dict()[name], tensor) for name, tensor in before[0].items())
    assert teacher.config.to_dict() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


PLAIN = """
import sys, torch, transformers
for folder in sys.argv[1:]:
    saved = torch.load(f"{folder}/case.pt")
    model = getattr(transformers, saved["class"]).from_pretrained(folder)
    with torch.no_grad():
        logits = model(**saved["inputs"])
    for name, expected in saved["outputs"].items():
        assert torch.equal(logits[name], expected), (folder, name)
assert "hf_distill" not in sys.modules
print(len(sys.argv) - 1)
"""


@pytest.mark.slow
def test_every_student_loads_in_a_process_without_this_library(tmp_path):
    """One process for all architectures, since importing Transformers takes longer than all else here."""
    for name, make in TEACHERS.items():
        teacher = make(4)
        student, inputs = halved(teacher), inputs_of(teacher)
        with torch.no_grad():
            said = student(**inputs)
        outputs = {key: value for key, value in said.items() if key.startswith("logits")}
        assert outputs
        student.save_pretrained(tmp_path / name)
        case = {"class": type(student).__name__, "inputs": inputs, "outputs": outputs}
        torch.save(case, tmp_path / name / "case.pt")
    folders = [str(tmp_path / name) for name in TEACHERS]
    done = subprocess.run([sys.executable, "-c", PLAIN, *folders], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(len(TEACHERS))


def test_layers_are_numbered_anew():
    student = student_from_teacher(teachers.llama(4), layers=[1, 3])
    assert [layer.self_attn.layer_idx for layer in student.model.layers] == [0, 1]
    with torch.no_grad():
        written = student.generate(torch.tensor([[1, 5, 7]]), max_new_tokens=4, do_sample=False)  # with a cache
    assert written.shape == (1, 7)


def test_relative_attention_bias_stays_in_the_first_layer():
    teacher = teachers.t5(4)
    student = student_from_teacher(teacher, layers=[2, 3])
    for side in ("encoder", "decoder"):
        ours, theirs = getattr(student, side).block, getattr(teacher, side).block
        assert torch.equal(ours[0].layer[0].SelfAttention.q.weight, theirs[2].layer[0].SelfAttention.q.weight)
        bias = [block.layer[0].SelfAttention.relative_attention_bias.weight for block in (ours[0], theirs[0])]
        assert torch.equal(*bias)


def test_a_first_layer_of_another_kind_may_go():
    """Its dense neurons are its own, and the first layer of the student has experts."""
    config = teachers.TEACHERS["qwen2_moe"](4).config
    config.mlp_only_layers = [0]
    teacher = type(teachers.TEACHERS["qwen2_moe"](1))(config)
    student = student_from_teacher(teacher, layers=[1, 3])
    assert student.config.mlp_only_layers == []
    assert torch.equal(student.model.layers[0].mlp.gate.weight, teacher.model.layers[1].mlp.gate.weight)


def test_each_layer_keeps_its_kind_of_attention():
    student = student_from_teacher(teachers.modernbert(6), layers=[0, 3, 4])
    assert student.config.layer_types == ["full_attention", "full_attention", "sliding_attention"]
    assert [layer.attn.sliding_window is None for layer in student.model.layers] == [True, True, False]


def test_encoder_and_decoder_are_cut_apart():
    student = student_from_teacher(
        TEACHERS["whisper"](4), num_hidden_layers={"decoder": 2}, layers={"decoder": "first", "encoder": [0, 1, 3]}
    )
    assert (student.config.encoder_layers, student.config.decoder_layers) == (3, 2)
    assert (len(student.model.encoder.layers), len(student.model.decoder.layers)) == (3, 2)


def test_heads_that_align_words_with_sound_are_numbered_anew():
    teacher = TEACHERS["whisper"](4)
    teacher.generation_config.alignment_heads = [[1, 0], [2, 1], [3, 1]]
    student = student_from_teacher(teacher, num_hidden_layers={"decoder": 2})
    assert student.generation_config.alignment_heads == [[1, 1]]
    assert teacher.generation_config.alignment_heads == [[1, 0], [2, 1], [3, 1]]


def test_a_layer_that_only_fits_elsewhere_is_refused():
    with pytest.raises(
        UnsupportedModelError, match=r"no place for model\.layers\.0\.attn_norm\.weight.*keep the first"
    ):
        student_from_teacher(teachers.modernbert(4), layers=[1, 2])


def test_a_layer_with_another_flag_in_its_new_place_is_refused():
    """Each layer of BigBird has random attention of its own, drawn from its number."""
    teacher = teachers.of(BigBirdModel, BigBirdConfig, **teachers.ENCODER, num_hidden_layers=4)
    with pytest.raises(UnsupportedModelError, match=r"layer 3 has seed=3, and as layer 1 would have 1"):
        student_from_teacher(teacher, layers=[0, 3])
    assert student_from_teacher(teacher, layers=[0, 1]).config.num_hidden_layers == 2


def test_a_pattern_of_layers_becomes_a_list_of_them(tmp_path):
    """GPT-Neo says in a pattern, and layer by layer, which of them see all tokens."""
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_heads": 2, "num_layers": 4}
    teacher = teachers.of(GPTNeoModel, GPTNeoConfig, **sizes, attention_types=[[["global", "local"], 2]])
    student_from_teacher(teacher, layers=[0, 2]).save_pretrained(tmp_path)
    loaded = GPTNeoModel.from_pretrained(tmp_path)
    assert [layer.attn.attention_type for layer in loaded.h] == ["global", "global"]


def test_a_layer_that_computes_with_its_number_is_refused():
    ids = teachers.SPECIAL_IDS
    sizes = {"vocab_size": 40, "n_embd": 16, "n_head": 2, "n_layer": 4, "scale_attn_by_inverse_layer_idx": True}
    teacher = teachers.of(GPT2LMHeadModel, GPT2Config, **sizes, **ids)
    with pytest.raises(
        UnsupportedModelError, match=r"layers \{'layers': \(0, 3\)\}.*layer 3 has scale_attn_by_inverse"
    ):
        student_from_teacher(teacher, num_hidden_layers=2)
    assert student_from_teacher(teacher, num_hidden_layers=2, layers="first").config.n_layer == 2


def test_layers_that_share_their_weights_are_refused():
    with pytest.raises(UnsupportedModelError, match=r"AlbertForMaskedLM has no list of layers.*share their weights"):
        student_from_teacher(teachers.albert(4), num_hidden_layers=2)


ENCODER = Stack("encoder", (), "encoder_layers", 6, ("encoder.layers",))
DECODER = Stack("decoder", (), "decoder_layers", 4, ("decoder.layers",))


@pytest.mark.parametrize(
    ("numbers", "layers", "expected"),
    [
        (2, "uniform", {"encoder": (0, 5), "decoder": (0, 3)}),
        ({"encoder": 3}, "uniform", {"encoder": (0, 3, 5), "decoder": (0, 1, 2, 3)}),
        (None, {"decoder": [1]}, {"encoder": (0, 1, 2, 3, 4, 5), "decoder": (1,)}),
        ({"encoder": 2}, {"encoder": "last"}, {"encoder": (4, 5), "decoder": (0, 1, 2, 3)}),
        (2, [0, 2], {"encoder": (0, 2), "decoder": (0, 2)}),
    ],
)
def test_numbers_and_layers_of_each_stack(numbers, layers, expected):
    assert kept_layers([ENCODER, DECODER], numbers, layers) == (expected, [])


def test_all_faults_are_told():
    _, faults = kept_layers([ENCODER, DECODER], {"encoder": 9, "middle": 1}, {"decoder": [3, 1, 7]})
    assert faults == [
        "num_hidden_layers= names 'middle', but the teacher's stacks of layers are ['encoder', 'decoder']",
        "num_hidden_layers=9 for 'encoder', but the teacher has 6: take 1 to 6",
        "layers=[3, 1, 7] for 'decoder' names [7], but the teacher has 0 to 3, counted from 0",
        "layers=[3, 1, 7] for 'decoder' must ascend without repeats, as [1, 3, 7] does",
    ]

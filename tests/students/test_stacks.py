"""Where the layers are, in architectures that name everything otherwise."""

import pytest
from torch import nn
from transformers import SwinConfig, SwinModel

from hf_distill.errors import UnsupportedModelError
from hf_distill.students.stacks import Stack, stacks_of
from tests.students import teachers
from tests.students.teachers import TEACHERS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert", [Stack("layers", (), "num_hidden_layers", 3, ("bert.encoder.layer",))]),
        ("distilbert", [Stack("layers", (), "n_layers", 3, ("distilbert.transformer.layer",))]),
        ("gpt2", [Stack("layers", (), "n_layer", 3, ("transformer.h",))]),
        (
            "t5",
            [
                Stack("encoder", (), "num_layers", 3, ("encoder.block",)),
                Stack("decoder", (), "num_decoder_layers", 3, ("decoder.block",)),
            ],
        ),
        (
            "whisper",
            [
                Stack("encoder", (), "encoder_layers", 3, ("model.encoder.layers",)),
                Stack("decoder", (), "decoder_layers", 3, ("model.decoder.layers",)),
            ],
        ),
        (
            "clip",
            [
                Stack("text", ("text_config",), "num_hidden_layers", 3, ("text_model.encoder.layers",)),
                Stack("vision", ("vision_config",), "num_hidden_layers", 5, ("vision_model.encoder.layers",)),
            ],
        ),
    ],
)
def test_stacks_are_found(name, expected):
    assert list(stacks_of(TEACHERS[name](3))) == expected


def test_one_layer_in_several_lists():
    (stack,) = stacks_of(TEACHERS["xlm"](3))
    assert stack.lists == tuple(f"transformer.{name}" for name in ("attentions", "layer_norm1", "ffns", "layer_norm2"))


def test_a_list_that_is_as_long_by_chance_is_none(monkeypatch):
    teacher = TEACHERS["bert"](3)
    teacher.further = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    assert [stack.lists for stack in stacks_of(teacher)] == [("bert.encoder.layer",)]


def test_a_stack_of_one_layer_is_a_stack():
    assert [stack.size for stack in stacks_of(teachers.t5(1))] == [1, 1]


def test_layers_that_no_number_counts_are_refused():
    sizes = {"image_size": 8, "patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_size": 2}
    with pytest.raises(UnsupportedModelError, match=r"SwinModel has no list of layers .* \(Swin\), train a smaller"):
        stacks_of(SwinModel(SwinConfig(**sizes)))

"""Where the heads, the neurons and the hidden units of an architecture are."""

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from hf_distill.errors import UnsupportedModelError
from hf_distill.students.importance import Slices
from hf_distill.students.stacks import stacks_of


@dataclass(frozen=True)
class Family:
    """The modules of a layer, by their names in it."""

    queries: str
    keys: str
    values: str
    attention_output: str
    neurons_in: tuple[str, ...]
    """All that write the neurons: two with a gated activation."""
    neurons_out: str
    intermediate_field: str = "intermediate_size"
    has_head_size: bool = False
    """Whether the configuration has a `head_dim`; if not, a head is hidden_size / num_attention_heads large."""


_BERT = Family(
    queries="attention.self.query",
    keys="attention.self.key",
    values="attention.self.value",
    attention_output="attention.output.dense",
    neurons_in=("intermediate.dense",),
    neurons_out="output.dense",
)
_DISTILBERT = Family(
    queries="attention.q_lin",
    keys="attention.k_lin",
    values="attention.v_lin",
    attention_output="attention.out_lin",
    neurons_in=("ffn.lin1",),
    neurons_out="ffn.lin2",
    intermediate_field="hidden_dim",
)
_VIT = Family(
    queries="attention.q_proj",
    keys="attention.k_proj",
    values="attention.v_proj",
    attention_output="attention.o_proj",
    neurons_in=("mlp.fc1",),
    neurons_out="mlp.fc2",
)
_LLAMA = Family(
    queries="self_attn.q_proj",
    keys="self_attn.k_proj",
    values="self_attn.v_proj",
    attention_output="self_attn.o_proj",
    neurons_in=("mlp.gate_proj", "mlp.up_proj"),
    neurons_out="mlp.down_proj",
    has_head_size=True,
)
FAMILIES = {
    "bert": _BERT,
    "roberta": _BERT,
    "electra": _BERT,
    "distilbert": _DISTILBERT,
    "vit": _VIT,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
}
"""The model types that can be made narrower. Each is tested: a width is spread over many tensors, and one that is cut
along the wrong axis makes no noise."""


def family_of(model: PreTrainedModel) -> Family:
    """The family of a model.

    Raises:
        UnsupportedModelError: if its architecture cannot be made narrower.
    """
    config: Any = model.config
    if config.model_type in FAMILIES and not getattr(config, "add_cross_attention", False):
        return FAMILIES[config.model_type]
    what = "cross-attention" if config.model_type in FAMILIES else f"model_type {config.model_type!r}"
    raise UnsupportedModelError(
        f"{type(model).__name__} has {what}, and hidden_size=, num_attention_heads=, num_key_value_heads= and "
        f"intermediate_size= are known for {', '.join(FAMILIES)} without cross-attention. Leave them out and cut "
        "`num_hidden_layers=` instead, which works for any architecture."
    )


@dataclass(frozen=True)
class LayerUnits:
    """The units of one layer, as slices of tensors; those that are read stand last."""

    heads: tuple[Slices, ...]
    """The rows of the queries, and the columns of the attention's output."""
    key_value_heads: tuple[Slices, ...]
    """The rows of the keys and of the values."""
    neurons: tuple[Slices, ...]
    """The rows of all that write them, and the columns of what reads them."""


def layers_of(model: PreTrainedModel) -> list[LayerUnits]:
    """The units of each layer.

    Raises:
        UnsupportedModelError: as `family_of`, or if a layer lacks a projection of its family.
    """
    family = family_of(model)
    config: Any = model.config
    heads = config.num_attention_heads
    key_value_heads = getattr(config, "num_key_value_heads", None) or heads
    neurons = getattr(config, family.intermediate_field)
    names = model.state_dict().keys()

    def written(module: str, num_units: int) -> Slices:
        parts = (f"{module}.weight", f"{module}.bias")  # not every projection has a bias
        return Slices(tuple((name, 0) for name in parts if name in names), num_units)

    def read(module: str, num_units: int) -> Slices:
        return Slices(((f"{module}.weight", 1),), num_units)

    (stack,) = stacks_of(model)
    prefixes = [f"{stack.lists[0]}.{index}." for index in range(stack.size)]
    projections = (family.queries, family.keys, family.values, family.attention_output, *family.neurons_in)
    expected = (f"{prefix}{name}.weight" for prefix in prefixes for name in (*projections, family.neurons_out))
    if missing := [name for name in expected if name not in names]:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no {missing[0]}, so where its heads and neurons are is not known: it was "
            "changed after it was built, or this version of Transformers names its parts otherwise. Cut "
            "`num_hidden_layers=` instead."
        )
    return [
        LayerUnits(
            (written(layer + family.queries, heads), read(layer + family.attention_output, heads)),
            (written(layer + family.keys, key_value_heads), written(layer + family.values, key_value_heads)),
            (
                *(written(layer + name, neurons) for name in family.neurons_in),
                read(layer + family.neurons_out, neurons),
            ),
        )
        for layer in prefixes
    ]

"""Where in a model its blocks are, and how many and how wide."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from hf_distill.errors import UnsupportedModelError
from hf_distill.feature_reading.projections import Projections, is_stack, projections_of
from hf_distill.types import Anatomy, StackShape


class Stack(NamedTuple):
    """The blocks of one model that are run one after the other."""

    blocks: nn.ModuleList
    model: Any
    """The innermost model around them that has a configuration."""

    def projections(self, layer: int) -> Projections:
        """Where block `layer`, counted from 1, makes its queries, keys and values.

        Raises:
            UnsupportedModelError: if they are not made by linear maps that we know.
        """
        return projections_of(self.blocks[layer - 1], self.model.config)

    @property
    def shape(self) -> StackShape:
        sizes = len(self.blocks), self.model.config.hidden_size
        try:
            attention = self.projections(1)
        except UnsupportedModelError:  # for who reads no more than hidden states
            return StackShape(*sizes)
        return StackShape(*sizes, attention.num_heads, attention.num_heads * attention.head_size)


def stacks_of(model: nn.Module) -> Mapping[str, Stack]:
    """The stacks of a model, by the part of their path that tells them apart; `""` for a single one.

    Raises:
        UnsupportedModelError: if no stack is found.

    Example:

        >>> from transformers import BartConfig, BartModel
        >>> sizes = {"vocab_size": 8, "d_model": 4, "encoder_layers": 2, "decoder_layers": 1}
        >>> list(stacks_of(BartModel(BartConfig(**sizes, encoder_attention_heads=1, decoder_attention_heads=1))))
        ['encoder', 'decoder']
    """
    found = dict(_stacks(model))
    if not found:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no list of blocks with attention, and none of its layers, so these cannot be "
            "told apart. Use terms that read logits and labels only."
        )
    if len(found) == 1:
        return {"": next(iter(found.values()))}
    return {_distinguishing_part(path, list(found)): stack for path, stack in found.items()}


def anatomy_of(model: nn.Module) -> Anatomy:
    """The stacks of blocks of a model and their sizes.

    Raises:
        UnsupportedModelError: if no stack is found.

    Example:

        >>> from transformers import BertConfig, BertModel
        >>> sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 8}
        >>> anatomy_of(BertModel(BertConfig(**sizes, num_hidden_layers=3))).stack(None)
        StackShape(num_layers=3, hidden_size=8, num_attention_heads=2, attention_width=8)
    """
    return Anatomy(type(model).__name__, {side: stack.shape for side, stack in stacks_of(model).items()})


def _stacks(model: nn.Module) -> Iterator[tuple[str, Stack]]:
    """Outermost lists of which every entry holds an attention or is a layer of its model, with their paths."""
    modules = dict(model.named_modules())
    outer: tuple[str, ...] = ()
    for path, module in modules.items():
        if (is_stack(module) or _are_layers(module, path, modules)) and not path.startswith(outer):
            outer = (*outer, f"{path}.")
            blocks: Any = module
            yield path, Stack(blocks, _model_above(path, modules))


def _are_layers(module: nn.Module, path: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether it lists all layers of a model, some or none of which attend (Mamba, and hybrids with attention)."""
    above: Any = modules[path.rpartition(".")[0]]
    if not isinstance(module, nn.ModuleList) or not isinstance(above, PreTrainedModel):
        return False
    config: Any = above.config
    is_sized = len(module) == getattr(config, "num_hidden_layers", 0) and isinstance(
        getattr(config, "hidden_size", None), int
    )
    return is_sized and all(isinstance(each, GradientCheckpointingLayer) for each in module)


def _model_above(path: str, modules: Mapping[str, nn.Module]) -> PreTrainedModel:
    while path:
        path = path.rpartition(".")[0]
        module = modules[path]
        if isinstance(module, PreTrainedModel) and hasattr(module.config, "hidden_size"):
            return module
    raise UnsupportedModelError(
        f"no part of {type(modules['']).__name__} around its blocks is a `PreTrainedModel` whose configuration has a "
        "hidden_size. Use terms that read logits and labels only."
    )


def _distinguishing_part(path: str, paths: list[str]) -> str:
    for part in path.split("."):
        if sum(part in other.split(".") for other in paths) == 1:
            return part
    return path

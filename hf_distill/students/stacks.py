"""Where the layers of a model are, and which field of its configuration counts them."""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from hf_distill.errors import UnsupportedModelError
from hf_distill.students.rebuild import empty_model


@dataclass(frozen=True)
class Stack:
    """One pile of layers, such as the encoder's of an encoder–decoder."""

    name: str
    """What tells it from the model's other stacks: `encoder`, `decoder`, `text`, `vision`; `layers` if it is alone."""
    config_path: tuple[str, ...]
    """The sub-configuration, from the model's own, that counts the layers."""
    field: str
    """The name of that number in it."""
    size: int
    """How many layers there are."""
    lists: tuple[str, ...]
    """The modules that hold one entry a layer, as a rule one."""


def stacks_of(model: PreTrainedModel) -> tuple[Stack, ...]:
    """The stacks of layers of any model, found by building it without weights and with one layer more.

    A field of the configuration counts the layers of those lists of modules that become longer with it. So no table
    of architectures is needed.

    Raises:
        UnsupportedModelError: if no field of the configuration counts the entries of a list of modules.
    """
    sizes = _list_sizes(model)
    found: list[tuple[tuple[str, ...], str, int, tuple[str, ...]]] = []
    for path, node in sub_configs(model.config):
        for field, size in sorted(vars(node).items()):
            if "layer" in field and type(size) is int and size in sizes.values():
                probed = _sizes_with_one_more(model, path, field, size)
                lists = tuple(name for name in sizes if sizes[name] == size and probed.get(name) == size + 1)
                if lists:
                    found.append((path, field, size, lists))
    if not found:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no list of layers that a number in its configuration counts. If its layers "
            "share their weights (ALBERT), lower that number in a copy of the configuration and load the teacher's "
            "weights as they are; if each of its stages has a number of layers (Swin), train a smaller model of its "
            "family."
        )
    order = list(sizes)
    found.sort(key=lambda stack: order.index(stack[-1][0]))
    names = _telling_names([lists[0] for *_, lists in found])
    return tuple(Stack(name, *stack) for name, stack in zip(names, found, strict=True))


def _sizes_with_one_more(model: PreTrainedModel, path: tuple[str, ...], field: str, size: int) -> dict[str, int]:
    """The lengths of lists in a model with one layer more; none if there is no such model, as of some convolutions."""
    try:
        longer = with_layers(model.config, path, field, (*range(size), 0))
        return _list_sizes(empty_model(model, longer, device="meta"))
    except UnsupportedModelError:
        return {}


def sub_configs(config: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A configuration and those inside it, each with the attributes that lead to it."""
    yield path, config
    for name, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            yield from sub_configs(value, (*path, name))


def with_layers(config: Any, path: tuple[str, ...], field: str, kept: tuple[int, ...]) -> Any:
    """A copy of a configuration with some layers, also where it says something of each layer or names some.

    Args:
        config: the model's.
        path, field: as in `Stack`.
        kept: the layers.

    Raises:
        UnsupportedModelError: if the model of the configuration hands out what a layer says that is not kept.
    """
    config = copy.deepcopy(config)
    node = config
    for name in path:
        node = getattr(node, name)
    size = getattr(node, field)
    for name, value in vars(node).items():
        is_of_layers = re.search("layer|types$|window$", name) and ("decoder" in name or "decoder" not in field)
        if not is_of_layers or not isinstance(value, (list, tuple)):
            continue
        if _names_layers(value, size):
            setattr(node, name, [kept.index(layer) for layer in value if layer in kept])
        elif len(value) == size:
            setattr(node, name, [value[layer] for layer in kept])
    setattr(node, field, len(kept))
    if len(getattr(node, "stage_names", None) or ()) == size + 1:
        _keep_stages(node, size, kept)
    return config


def _names_layers(value: list[Any] | tuple[Any, ...], size: int) -> bool:
    """Whether a list holds the numbers of some layers, as `mlp_only_layers` does, and no yes or no for each of two."""
    are_numbers = all(type(layer) is int and 0 <= layer < size for layer in value)
    return are_numbers and list(value) == sorted(set(value)) and (len(value) < size or size > 2)


def _keep_stages(config: Any, size: int, kept: tuple[int, ...]) -> None:
    """What a backbone hands out: 0 is what it reads, i what layer i - 1 says, and the last stays the last."""
    lost = [index for index in config.out_indices if 0 < index < size and index - 1 not in kept]
    if lost:
        raise UnsupportedModelError(
            f"{type(config).__name__} has out_indices={config.out_indices}, and the layers {[i - 1 for i in lost]} "
            f"that it hands out are not among those kept, {list(kept)}. Keep them."
        )
    places = {0: 0, size: len(kept)}
    indices = [places[index] if index in places else kept.index(index - 1) + 1 for index in config.out_indices]
    config.stage_names = [config.stage_names[0], *(f"stage{index}" for index in range(1, len(kept) + 1))]
    config.set_output_features_output_indices(out_features=None, out_indices=indices)


def _list_sizes(model: nn.Module) -> dict[str, int]:
    return {
        name: len(module)
        for name, module in model.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential))
    }


def _telling_names(paths: list[str]) -> list[str]:
    """For each path the first part that not all of them have in that place.

    Example:

        >>> _telling_names(["model.encoder.layers", "model.decoder.layers"])
        ['encoder', 'decoder']
        >>> _telling_names(["vision_model.layers", "text_model.layers"])
        ['vision', 'text']
        >>> _telling_names(["bert.encoder.layer"])
        ['layers']
    """
    if len(paths) == 1:
        return ["layers"]
    parts = [path.split(".") for path in paths]
    place = next(place for place, names in enumerate(zip(*parts, strict=False)) if len(set(names)) > 1)
    names = [part[place].removesuffix("_model") for part in parts]
    return names if len(set(names)) == len(names) else paths

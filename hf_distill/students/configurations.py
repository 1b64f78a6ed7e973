"""What a configuration says of layers, and what is left of it once it is saved."""

import copy
import re
from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedConfig

from hf_distill.errors import UnsupportedModelError


def reloaded(config: Any) -> Any:
    """A configuration as it reads after being saved and loaded; attention is still computed in the same ways.

    Raises:
        UnsupportedModelError: if it would not load.
    """
    parts = {"": config} | {name: part for name in config.sub_configs if (part := getattr(config, name)) is not None}
    attention = {name: part._attn_implementation for name, part in parts.items()}
    try:
        return type(config).from_dict(copy.deepcopy(config).to_dict(), attn_implementation=attention)
    except Exception as error:  # each architecture checks in its own way
        raise UnsupportedModelError(
            f"the {type(config).__name__} of this student cannot be saved and loaded: {error}"
        ) from error


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

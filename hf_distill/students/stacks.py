"""Where the layers of a model are, and which field of its configuration counts them."""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from hf_distill.errors import UnsupportedModelError
from hf_distill.students.configurations import sub_configs, with_layers
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

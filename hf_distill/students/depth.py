"""A student with some of the teacher's layers."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_distill.errors import UnsupportedModelError
from hf_distill.students.configurations import with_layers
from hf_distill.students.layer_choice import LayerRule, chosen_layers, layer_faults
from hf_distill.students.rebuild import empty_model, rebuilt, tensors_of
from hf_distill.students.stacks import Stack


Layers = LayerRule | Sequence[int]

_SAME_IN_EFFECT = ("training", "gradient_checkpointing", "layer_idx", "layer_id", "layer_index")
"""Attributes of a layer that may differ from the teacher's: they number it, or say how it is trained."""


def kept_layers(
    stacks: Sequence[Stack],
    num_hidden_layers: int | Mapping[str, int] | None,
    layers: Layers | Mapping[str, Layers],
) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """For each stack, by its name, the layers of the teacher that the student keeps, and what is impossible about it.

    Args:
        stacks: the teacher's.
        num_hidden_layers: how many of each stack, or of those named; None keeps all.
        layers: which of each stack, or of those named.
    """
    numbers = _of_each_stack(num_hidden_layers, stacks)
    choices = _of_each_stack(layers, stacks)
    names = [stack.name for stack in stacks]
    faults = [
        f"{argument}= names {name!r}, but the teacher's stacks of layers are {names}"
        for argument, given in (("num_hidden_layers", numbers), ("layers", choices))
        for name in given
        if name not in names
    ]
    kept = {}
    for stack in stacks:
        where = "" if len(stacks) == 1 else f" for {stack.name!r}"
        number, choice = numbers.get(stack.name), choices.get(stack.name, "uniform")
        found = layer_faults(where, choice, number, stack.size)
        faults += found
        if not found:
            number = stack.size if number is None else number
            kept[stack.name] = (
                chosen_layers(choice, number, stack.size) if isinstance(choice, str) else tuple(choice)  # type: ignore[arg-type]
            )
    return kept, faults


def _of_each_stack(value: Any, stacks: Sequence[Stack]) -> dict[str, Any]:
    if value is None:
        return {}
    return dict(value) if isinstance(value, Mapping) else {stack.name: value for stack in stacks}


def with_kept_layers(
    model: PreTrainedModel, stacks: Sequence[Stack], kept: Mapping[str, Sequence[int]]
) -> PreTrainedModel:
    """A model with copies of those layers, and of all that is no layer.

    It is built from the shortened configuration, so that layers are numbered anew wherever the architecture numbers
    them, and then filled. What only the first layer has, such as T5's relative attention bias, stays in the first.

    Args:
        model: the teacher.
        stacks: its stacks.
        kept: for each of them, the layers to keep, ascending.

    Raises:
        UnsupportedModelError: if a layer, built in its new place, would not compute what it did in the old one.
    """
    config = model.config
    for stack in stacks:
        config = with_layers(config, stack.config_path, stack.field, tuple(kept[stack.name]))
    tensors, places = tensors_of(model), tensors_of(empty_model(model, config, device="meta")).keys()
    for stack in stacks:
        for name in stack.lists:
            tensors = _with_layers_of(name, tensors, kept[stack.name], places)
    student = rebuilt(model, config, tensors)
    _keep_alignment_heads(student, kept)
    faults = [
        fault
        for stack in stacks
        for name in stack.lists
        for fault in _unlike_layers(student, model, name, kept[stack.name])
    ]
    if faults:
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be cut to the layers {dict(kept)}: {'; '.join(faults[:4])}. What a layer "
            "does depends on where it stands; choose layers that keep their kind."
        )
    return student


def _keep_alignment_heads(student: PreTrainedModel, kept: Mapping[str, Sequence[int]]) -> None:
    """Whisper's heads that tell when a word was said, each a layer of the decoder and a head of it."""
    config: Any = student.generation_config if student.can_generate() else None
    heads = getattr(config, "alignment_heads", None)
    if heads and "decoder" in kept:
        layers = list(kept["decoder"])
        config.alignment_heads = [[layers.index(layer), head] for layer, head in heads if layer in layers]


def _with_layers_of(
    path: str, tensors: Mapping[str, Tensor], kept: Sequence[int], places: Collection[str]
) -> dict[str, Tensor]:
    """The tensors under their names in the student; `places` are all names that it has."""
    layer_of = re.compile(re.escape(path) + r"\.(\d+)\.(.+)")
    of_first = _of_first_layer_alone(path, tensors) & set(places)
    moved = {}
    for name, tensor in tensors.items():
        match = layer_of.fullmatch(name)
        if match is None or name in of_first:
            moved[name] = tensor
        elif int(match[1]) in kept:
            moved[f"{path}.{list(kept).index(int(match[1]))}.{match[2]}"] = tensor
    return moved


def _of_first_layer_alone(path: str, tensors: Mapping[str, Tensor]) -> set[str]:
    """The names of tensors that the first layer of several has and no other has."""
    inside = re.compile(re.escape(path) + r"\.(\d+)\.(.+)")
    layers: dict[str, set[int]] = {}
    for match in filter(None, map(inside.fullmatch, tensors)):
        layers.setdefault(match[2], set()).add(int(match[1]))
    is_single = {0} == set().union(*layers.values())
    return set() if is_single else {f"{path}.0.{rest}" for rest, where in layers.items() if where == {0}}


def _unlike_layers(student: nn.Module, teacher: nn.Module, path: str, kept: Sequence[int]) -> list[str]:
    """Plain attributes in which a layer of the student differs from the layer that it was copied from."""
    of_first = {name.rsplit(".", 2)[0] for name in _of_first_layer_alone(path, dict(teacher.named_parameters()))}
    faults = []
    for place, layer in enumerate(kept):
        copy, original = (
            model.get_submodule(f"{path}.{index}") for model, index in ((student, place), (teacher, layer))
        )
        modules = dict(copy.named_modules())
        for name, module in original.named_modules():
            if f"{path}.0.{name}" in of_first:
                continue  # what only the first layer has is told by flags on the module that holds it
            for attribute, value in vars(module).items():
                now = getattr(modules.get(name), attribute, None)
                if _has_effect(attribute, value, now) and (
                    value != now or _scales_by_index(attribute, value, place != layer)
                ):
                    faults.append(f"layer {layer} has {attribute}={value}, and as layer {place} would have {now}")
    return faults


def _has_effect(attribute: str, *values: object) -> bool:
    is_plain = all(isinstance(value, (bool, int, float, str, tuple, type(None))) for value in values)
    return is_plain and not attribute.startswith("_") and "drop" not in attribute and attribute not in _SAME_IN_EFFECT


def _scales_by_index(attribute: str, value: object, moved: bool) -> bool:
    return moved and "layer_idx" in attribute and value is True

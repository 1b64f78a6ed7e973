"""A model of a changed configuration, filled with weights of the teacher."""

import copy
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from hf_distill.errors import UnsupportedModelError
from hf_distill.students.configurations import reloaded


def tensors_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """All that is saved of a model, a tied tensor under each of its names."""
    return dict(model.state_dict())


def empty_model(model: PreTrainedModel, config: Any, device: str = "cpu") -> PreTrainedModel:
    """A model of the same class with this configuration and no weights yet, its tied weights tied.

    The random state stays as it was.

    Raises:
        UnsupportedModelError: if the architecture cannot be built from this configuration.
    """
    try:
        with torch.random.fork_rng(devices=[]), no_init_weights(), torch.device(device):
            empty: PreTrainedModel = type(model)(copy.deepcopy(config))
    except Exception as error:  # each architecture checks in its own way
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be built from the configuration of this student: {error}"
        ) from error
    empty.tie_weights()
    return empty


def rebuilt(model: PreTrainedModel, config: Any, tensors: Mapping[str, Tensor]) -> PreTrainedModel:
    """A model of the same class, built from a configuration and filled with copies of tensors.

    It is built from the configuration as it reads after being saved and loaded, so that what is built here is what
    `from_pretrained` will build. Tied weights stay tied; every tensor keeps the dtype of its source, and all lie on
    the model's device. What is not saved, such as the frequencies of rotary positions, follows from the
    configuration. The new model is in eval mode and trainable, as one that was just loaded.

    Args:
        model: gives the class, the device and the generation configuration.
        config: of the new model.
        tensors: one for each name in `tensors_of` the new model.

    Raises:
        UnsupportedModelError: if names or shapes are not those that the configuration asks for.
    """
    student = empty_model(model, reloaded(config))
    targets = tensors_of(student)
    faults = [f"nothing of the teacher's fits {name}" for name in sorted(targets.keys() - tensors.keys())]
    faults += [f"the student has no place for {name}" for name in sorted(tensors.keys() - targets.keys())]
    faults += [
        f"{name} is {tuple(tensors[name].shape)} in the teacher and {tuple(targets[name].shape)} in the student"
        for name in sorted(targets.keys() & tensors.keys())
        if tensors[name].shape != targets[name].shape
    ]
    faults = faults or _untied(student, tensors)
    if faults:
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be cut like this: {_shortened(faults)}. Its parts are not "
            "interchangeable; keep the first layer if a layer is at fault, and undo changes made to the model after "
            "it was built."
        )
    for name, target in chain(student.named_parameters(), student.named_buffers()):
        if name in tensors:
            target.data = tensors[name].to(model.device, copy=True)
    if model.can_generate():
        student.generation_config = copy.deepcopy(model.generation_config)
    nn.Module.to(student, model.device)
    student.eval()
    return student


def _untied(student: PreTrainedModel, tensors: Mapping[str, Tensor]) -> list[str]:
    """Where one parameter of the student would have to be two."""
    first_names: dict[int, str] = {}
    faults = []
    for name, parameter in student.named_parameters(remove_duplicate=False):
        first = first_names.setdefault(id(parameter), name)
        if first != name and not torch.equal(tensors[first], tensors[name]):
            faults.append(f"{first} and {name} are tied by the configuration, but not equal in the teacher")
    return faults


def _shortened(faults: list[str]) -> str:
    return "; ".join(faults[:4]) + (f"; and {len(faults) - 4} more" if len(faults) > 4 else "")

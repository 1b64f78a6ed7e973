"""Learned parts that hang on a student while it is trained, and are no part of what is saved as the student."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict


NAME = "_distillation"
"""The submodule that holds them."""


def attach_parts(model: nn.Module, parts: nn.ModuleDict) -> list[Any]:
    """Make the parts a submodule of the model, unseen in its state.

    Returns:
        Handles, whose `remove` undoes the hiding; the submodule itself is taken off by [`detach_parts`].
    """
    model.add_module(NAME, parts)
    return [
        model.register_state_dict_post_hook(_leave_out),
        model.register_load_state_dict_post_hook(_do_not_miss),
    ]


def detach_parts(model: nn.Module) -> None:
    """Take the parts off again."""
    del model._modules[NAME]


def whole_state(parts: nn.ModuleDict) -> dict[str, Tensor]:
    """What to save of the parts, gathered from all processes on the first one. To be called on all of them."""
    state: dict[str, Any] = get_model_state_dict(
        parts, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    return state


def load_whole_state(parts: nn.ModuleDict, state: dict[str, Any]) -> None:
    """Put the parts back, sharded as they are. To be called on all processes."""
    set_model_state_dict(parts, dict(state), options=StateDictOptions(full_state_dict=True))


def _leave_out(model: nn.Module, state: dict[str, Any], prefix: str, metadata: Mapping[str, Any]) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}{NAME}.")]:
        del state[name]


def _do_not_miss(model: nn.Module, incompatible_keys: Any) -> None:
    missing = incompatible_keys.missing_keys
    missing[:] = [name for name in missing if f"{NAME}." not in name]

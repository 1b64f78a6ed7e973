"""Activation checkpointing, of which one kind loses the gradient of what is read inside of a block."""

from typing import Any

from torch import nn

from hf_distill.errors import ConfigurationError


def check_checkpointing(model: nn.Module, arguments: dict[str, Any] | None = None) -> None:
    """Refuses activation checkpointing of the reentrant kind.

    Args:
        model: the model whose features are read.
        arguments: the arguments that checkpointing will be switched on with.

    Raises:
        ConfigurationError: if `arguments` or a part of the model ask for it.
    """
    functions = [
        getattr(module, "_gradient_checkpointing_func", None)
        for module in model.modules()
        if getattr(module, "gradient_checkpointing", False)
    ]
    if any(given.get("use_reentrant") for given in (arguments or {}, *(_options(each) for each in functions))):
        raise ConfigurationError(
            f"{type(model).__name__} checkpoints its activations with use_reentrant=True, which gives what a term "
            "reads inside of its blocks no gradient. Set `activation_checkpointing_kwargs={'use_reentrant': False}`, "
            "or drop the terms that compare layers."
        )


def _options(function: Any) -> dict[str, Any]:
    options: dict[str, Any] = getattr(function, "keywords", {})
    return options

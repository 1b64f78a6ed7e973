"""Where a model comes from, as far as it may be published."""

from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id
from torch import nn
from transformers.trainer_utils import unwrap_peft_model


def hub_id(model: nn.Module) -> str | None:
    """The model's id on the Hub; None if it was made here or read from a folder, whose path is nobody's business."""
    config: Any = getattr(unwrap_peft_model(model), "config", None)
    name: str = getattr(config, "_name_or_path", "") or ""
    return name if is_repo_id(name) and not Path(name).exists() else None


def is_repo_id(name: str) -> bool:
    """Whether a repository of the Hub may be called that."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return bool(name)

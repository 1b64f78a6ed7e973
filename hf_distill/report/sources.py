"""Where a model comes from, as far as it may be published."""

from pathlib import Path
from typing import Any

from huggingface_hub.utils import HFValidationError, validate_repo_id
from torch import nn
from transformers.trainer_utils import unwrap_peft_model


def hub_id(model: nn.Module) -> str | None:
    """The model's id on the Hub; None if it was made here or read from a folder, whose path is nobody's business."""
    config: Any = getattr(unwrap_peft_model(model), "config", None)
    name = getattr(config, "_name_or_path", "") or ""
    if not name or Path(name).exists():
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return str(name)

"""Checkpointing of the reentrant kind is refused, whoever asks for it."""

import pytest

from hf_distill.errors import ConfigurationError
from hf_distill.feature_reading import check_checkpointing
from tests.architectures import model_of


@pytest.mark.parametrize("architecture", ["bert", "deberta-v2", "t5", "vit"])
def test_reentrant_checkpointing_is_refused(architecture):
    model = model_of(architecture, 2).train()
    model.activation_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(ConfigurationError, match=f"{type(model).__name__} checkpoints .* with use_reentrant=True"):
        check_checkpointing(model)
    model.activation_checkpointing_enable({"use_reentrant": False})
    check_checkpointing(model)


def test_before_it_is_switched_on():
    model = model_of("bert", 1)
    check_checkpointing(model, {"use_reentrant": False})
    with pytest.raises(ConfigurationError, match="use_reentrant=True"):
        check_checkpointing(model, {"use_reentrant": True})

"""How many frames a model makes of a sound."""

from bisect import bisect_left
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from hf_distill.types import Batch


FrameCount = Callable[[Tensor], Tensor]
"""Lengths of inputs, samples or columns of a spectrogram, to lengths of outputs."""

MAX_SAMPLES = 2**20
"""Of which every model makes a frame."""
_RULES = ("_get_feat_extract_output_lengths", "_get_subsampling_output_length")
"""What Transformers calls them. They are methods that read nothing but the configuration."""


def frame_count(model: Any) -> FrameCount | None:
    """The model's own rule of down-sampling, without the model; None if it has none.

    Example:

        >>> from transformers import Wav2Vec2Config, Wav2Vec2ForCTC
        >>> config = Wav2Vec2Config(conv_dim=(8, 8), conv_kernel=(10, 3), conv_stride=(5, 2), hidden_size=16,
        ...     num_hidden_layers=0, num_conv_pos_embedding_groups=2)
        >>> frame_count(Wav2Vec2ForCTC(config))(torch.tensor([100, 50]))
        tensor([9, 4])
    """
    rule = next((getattr(type(model), name) for name in _RULES if hasattr(type(model), name)), None)
    return None if rule is None else partial(rule, SimpleNamespace(config=model.config))


def least_frames(model: Any) -> int:
    """Without which a model makes nothing of a sound: one, or as many as it squeezes to one."""
    return int(getattr(model.config, "squeeze_factor", 1))


def least_samples(model: Any) -> int:
    """Of a waveform of which a model makes something; 1 where it has no rule of down-sampling."""
    count = frame_count(model)
    if count is None or model.main_input_name != "input_values":
        return 1
    lengths = range(1, MAX_SAMPLES)
    return 1 + bisect_left(lengths, least_frames(model), key=lambda samples: int(count(torch.tensor(samples))))


def real_frames(batch: Batch, count: FrameCount) -> Tensor:
    """Bool `(B, frames)`: the frames that are made of the sound, and not of its padding.

    Without an attention mask, every frame is one of the sound: so it is for the models, whose feature extractors
    leave the mask out where a model does without (`feat_extract_norm="group"`).
    """
    mask: Tensor | None = batch.get("attention_mask")
    if mask is None:
        inputs: Tensor = batch["input_values"] if batch.get("input_values") is not None else batch["input_features"]
        mask = torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)
    num_frames = int(count(torch.tensor(mask.shape[1], device="cpu")))  # on an accelerator, int() would wait for it
    return torch.arange(num_frames, device=mask.device) < count(mask.sum(-1))[:, None]

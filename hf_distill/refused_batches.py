"""Batches that a model cannot read, said in one sentence that names the model."""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn
from transformers.trainer_utils import unwrap_peft_model

from hf_distill.errors import ConfigurationError, DistillationError, UnsupportedModelError
from hf_distill.heads.frames import frame_count, least_frames, least_samples
from hf_distill.raw_columns import TEXT, modalities
from hf_distill.types import Batch


OF_A_MODEL = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What models raise for inputs that they cannot read."""
REMEDIES = {
    "student": "Prepare the data set as this model reads it.",
    "teacher": "If it reads other inputs than the student, pass its tokenizer or processor as "
    "`teacher_processing_class=`; else choose a teacher that reads the student's.",
}


def check_token_ids(batch: Batch, who: str, model: nn.Module) -> None:
    """A model has an embedding for each token of a text.

    Texts with pictures or sounds are not looked at: what stands in their place may have an id of its own.

    Raises:
        ConfigurationError: if it has none for some, of which torch would only say that an index is out of range.
    """
    ids, num_tokens = batch.get("input_ids"), _num_tokens(model)
    has_text_alone = modalities(batch) == [TEXT]
    if not has_text_alone or num_tokens is None or not isinstance(ids, Tensor) or ids.is_floating_point():
        return
    largest = int(ids.max()) if ids.numel() else 0
    if largest >= num_tokens:
        remedy = (
            "" if who == "student" else " Pass its own tokenizer as `teacher_processing_class=` if it has another."
        )
        raise ConfigurationError(
            f"`input_ids` holds {largest}, and the {who} {type(model).__name__} has embeddings of {num_tokens} "
            f"tokens, 0 to {num_tokens - 1}. Tokenize with its own tokenizer, and where tokens were added to it, call "
            f"`model.resize_token_embeddings(len(tokenizer))`.{remedy}"
        )


def check_recordings(batch: Batch, model: nn.Module) -> None:
    """Of each recording a model makes one frame at least.

    Raises:
        ConfigurationError: if it makes none of some. Alone such a one stops the convolutions, and beside longer ones
            it is a mean of nothing.
    """
    samples, mask, count = batch.get("input_values"), batch.get("attention_mask"), frame_count(model)
    if count is None or not isinstance(samples, Tensor) or samples.ndim != 2:
        return
    lengths = torch.full((len(samples),), samples.shape[1]) if mask is None else mask.sum(-1)
    if bool((short := count(lengths) < least_frames(model)).any()):
        row = int(short.nonzero()[0])
        raise ConfigurationError(
            f"the recording in row {row} of a batch has {int(lengths[row])} samples, and {type(model).__name__} reads "
            f"{least_samples(model)} or more. Leave it out, or pad it with silence."
        )


def _num_tokens(model: nn.Module) -> int | None:
    """The rows of a model's table of embeddings; None if it has none that is looked up by token ids."""
    base: Any = unwrap_peft_model(model)
    try:
        table = base.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    named = getattr(getattr(base, "config", None), "vocab_size", None)
    return max(table.num_embeddings, named or 0) if isinstance(table, nn.Embedding) else None


@contextmanager
def naming_the_model(models: Mapping[str, nn.Module], batch: Batch, hints: list[str]) -> Iterator[None]:
    """Say which model an error comes from that is raised inside of one, on which inputs, and what to do.

    Args:
        models: who → model.
        batch: what they are called with.
        hints: what is known to differ between the inputs that they expect.

    Raises:
        UnsupportedModelError: in place of the model's own error, from which it is raised. What comes from elsewhere,
            or says that memory is used up, stays as it is.
    """
    try:
        yield
    except DistillationError:
        raise
    except OF_A_MODEL as error:
        who = _raised_in(error, models)
        if who is None or should_reduce_batch_size(error):
            raise
        shapes = ", ".join(
            f"{name} {tuple(value.shape)}" for name, value in batch.items() if isinstance(value, Tensor)
        )
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0].rstrip(".")
        raise UnsupportedModelError(
            f"the {who} {type(models[who]).__name__} cannot compute a batch of {shapes} ({reason}). "
            f"{' '.join(hints) or REMEDIES[who.split()[0]]}"
        ) from error


def _raised_in(error: BaseException, models: Mapping[str, nn.Module]) -> str | None:
    """Whose call an error comes from."""
    callers = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    known = (who for caller in callers for who, model in models.items() if caller is unwrap_peft_model(model))
    return next(known, None)

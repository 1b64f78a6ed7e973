"""What a teacher reads of a batch, and whether the student reads the same by the same encoder."""

from collections.abc import Set
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.trainer_utils import unwrap_peft_model

from hf_distill.types import TEACHER_PREFIX, Batch


def as_read_by_teacher(batch: Batch, input_names: Set[str]) -> Batch:
    """The batch with the teacher's own inputs in place of the student's, if it has some: all of them, since a mask of
    the one and tokens of the other do not go together. A decoder's inputs are made of the labels, and stay."""
    own = {name: batch[f"{TEACHER_PREFIX}{name}"] for name in input_names if f"{TEACHER_PREFIX}{name}" in batch}
    if not own:
        return batch
    shared = {name: value for name, value in batch.items() if name not in input_names or name.startswith("decoder_")}
    return {**shared, **own}


def share_frozen_encoder(student: nn.Module, teacher: PreTrainedModel) -> bool:
    """Whether student and teacher hold one and the same encoder, which nothing trains, so that it may run once."""
    student, teacher = unwrap_peft_model(student), unwrap_peft_model(teacher)
    if not (isinstance(student, PreTrainedModel) and student.config.is_encoder_decoder):
        return False
    encoder = student.get_encoder()
    return encoder is teacher.get_encoder() and not any(weight.requires_grad for weight in encoder.parameters())


def encodes_alike(student: nn.Module, teacher: Any, batch: Batch) -> bool:
    """Whether an encoder that is the student's and the teacher's makes the same of a batch for both: not where the
    teacher reads inputs of its own, and not where the student hides parts of the sound from itself in training."""
    config: Any = unwrap_peft_model(student).config
    is_masked = student.training and getattr(config, "apply_spec_augment", False)
    return not is_masked and as_read_by_teacher(batch, teacher.input_names) is batch

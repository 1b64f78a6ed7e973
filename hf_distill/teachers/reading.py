"""What a teacher reads of a batch."""

from collections.abc import Set

from hf_distill.types import TEACHER_PREFIX, Batch


def as_read_by_teacher(batch: Batch, input_names: Set[str]) -> Batch:
    """The batch with the teacher's own inputs in place of the student's, if it has some: all of them, since a mask of
    the one and tokens of the other do not go together. A decoder's inputs are made of the labels, and stay."""
    own = {name: batch[f"{TEACHER_PREFIX}{name}"] for name in input_names if f"{TEACHER_PREFIX}{name}" in batch}
    if not own:
        return batch
    shared = {name: value for name, value in batch.items() if name not in input_names or name.startswith("decoder_")}
    return {**shared, **own}

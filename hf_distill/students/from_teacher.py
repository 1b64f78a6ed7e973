"""A student made out of its teacher."""

from collections.abc import Mapping

from transformers import PreTrainedModel

from hf_distill.errors import UnsupportedModelError
from hf_distill.students.depth import Layers, kept_layers, with_kept_layers
from hf_distill.students.rebuild import rebuilt, tensors_of
from hf_distill.students.stacks import stacks_of


def student_from_teacher(
    teacher: PreTrainedModel,
    *,
    num_hidden_layers: int | Mapping[str, int] | None = None,
    layers: Layers | Mapping[str, Layers] = "uniform",
) -> PreTrainedModel:
    """x"""
    student = rebuilt(teacher, teacher.config, tensors_of(teacher))
    if num_hidden_layers is not None or layers != "uniform":
        stacks = stacks_of(teacher)
        kept = kept_layers(stacks, num_hidden_layers, layers)
        student = with_kept_layers(student, stacks, kept)
    return student

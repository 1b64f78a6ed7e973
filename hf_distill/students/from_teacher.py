"""A student made out of its teacher."""

from collections.abc import Iterable, Mapping

from transformers import PreTrainedModel

from hf_distill.errors import ConfigurationError
from hf_distill.students.depth import Layers, kept_layers, with_kept_layers
from hf_distill.students.rebuild import rebuilt, tensors_of
from hf_distill.students.stacks import stacks_of
from hf_distill.students.width import narrower_widths, with_narrower_layers
from hf_distill.students.width_families import family_of
from hf_distill.types import Batch


def student_from_teacher(
    teacher: PreTrainedModel,
    *,
    num_hidden_layers: int | Mapping[str, int] | None = None,
    layers: Layers | Mapping[str, Layers] = "uniform",
    hidden_size: int | None = None,
    num_attention_heads: int | None = None,
    num_key_value_heads: int | None = None,
    intermediate_size: int | None = None,
    importance_data: Iterable[Batch] | None = None,
) -> PreTrainedModel:
    """x"""
    student = teacher
    wanted = {
        "hidden_size": hidden_size,
        "num_attention_heads": num_attention_heads,
        "num_key_value_heads": num_key_value_heads,
        "intermediate_size": intermediate_size,
    }
    if any(size is not None for size in wanted.values()):
        widths, faults = narrower_widths(teacher.config, family_of(teacher), wanted)
        if faults:
            raise ConfigurationError("; ".join(faults) + ".")
        student = with_narrower_layers(student, widths, importance_data)
    if num_hidden_layers is not None or layers != "uniform":
        stacks = stacks_of(teacher)
        kept = kept_layers(stacks, num_hidden_layers, layers)
        student = with_kept_layers(student, stacks, kept)
    return rebuilt(teacher, teacher.config, tensors_of(teacher)) if student is teacher else student

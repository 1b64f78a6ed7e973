"""Make a big Transformer teach a small one, with the Trainer you know.

The public names, each imported when it is first used. Importing the package registers the encoder language model with
Transformers' Auto classes.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_distill.version import __version__


def _starts_command_line() -> bool:
    """Whether this process is `hf-distill` or `python -m hf_distill`, which answer before torch is there."""
    is_script = Path((sys.argv or [""])[0]).stem == "hf-distill"
    return is_script or (sys.argv[:1] == ["-m"] and "hf_distill" in sys.orig_argv)


if not _starts_command_line():  # which registers the models itself, once it runs a command
    import_module("hf_distill.models")


if TYPE_CHECKING:
    from hf_distill import (
        errors,
        functional,
        heads,
        layer_maps,
        models,
        recipes,
        report,
        schedules,
        students,
        teachers,
        terms,
        types,
    )
    from hf_distill.data_augmentation import MaskedWordAugmentation
    from hf_distill.data_collator import DataCollatorForRowSeededMasking
    from hf_distill.export import Export, export_model, measured_export
    from hf_distill.heads import Head, head_of
    from hf_distill.invariances import InvarianceReport, check_invariances
    from hf_distill.memory import memory_estimate
    from hf_distill.models.encoder_lm import (
        EncoderLMConfig,
        EncoderLMForCausalLM,
        EncoderLMForMaskedLM,
        EncoderLMForQuestionAnswering,
        EncoderLMForSequenceClassification,
        EncoderLMForTokenClassification,
        EncoderLMModel,
    )
    from hf_distill.objective import Objective
    from hf_distill.rehearsal import PreflightReport, preflight_report
    from hf_distill.report import DistillationReport, distillation_report
    from hf_distill.schedules import Constant, Cosine, During, Linear
    from hf_distill.students import share_encoder, student_from_teacher, suggest_student
    from hf_distill.teachers import (
        AdapterOffTeacher,
        CachedTeacher,
        ColumnTeacher,
        EnsembleTeacher,
        OnlineTeacher,
        ProcessingTeacher,
        RoutedTeacher,
        ServedTeacher,
        Teacher,
        cache_teacher,
        load_teacher,
    )
    from hf_distill.terms import (
        AttentionMapTerm,
        AttentionScoreTerm,
        BoxTerm,
        ContrastiveTerm,
        DecoupledTerm,
        FlowTerm,
        HardLabelTerm,
        HiddenStateTerm,
        IntraClassTerm,
        RelationTerm,
        RowRelationTerm,
        SelectivityTerm,
        SoftTargetTerm,
        Term,
        UniversalLogitTerm,
        VariationalTerm,
    )
    from hf_distill.trainer import DistillationTrainer
    from hf_distill.training_args import DistillationTrainingArguments

__all__ = [
    "AdapterOffTeacher",
    "AttentionMapTerm",
    "AttentionScoreTerm",
    "BoxTerm",
    "CachedTeacher",
    "ColumnTeacher",
    "Constant",
    "ContrastiveTerm",
    "Cosine",
    "DataCollatorForRowSeededMasking",
    "DecoupledTerm",
    "DistillationReport",
    "DistillationTrainer",
    "DistillationTrainingArguments",
    "During",
    "EncoderLMConfig",
    "EncoderLMForCausalLM",
    "EncoderLMForMaskedLM",
    "EncoderLMForQuestionAnswering",
    "EncoderLMForSequenceClassification",
    "EncoderLMForTokenClassification",
    "EncoderLMModel",
    "EnsembleTeacher",
    "Export",
    "FlowTerm",
    "HardLabelTerm",
    "Head",
    "HiddenStateTerm",
    "IntraClassTerm",
    "InvarianceReport",
    "Linear",
    "MaskedWordAugmentation",
    "Objective",
    "OnlineTeacher",
    "PreflightReport",
    "ProcessingTeacher",
    "RelationTerm",
    "RoutedTeacher",
    "RowRelationTerm",
    "SelectivityTerm",
    "ServedTeacher",
    "SoftTargetTerm",
    "Teacher",
    "Term",
    "UniversalLogitTerm",
    "VariationalTerm",
    "__version__",
    "cache_teacher",
    "check_invariances",
    "distillation_report",
    "errors",
    "export_model",
    "functional",
    "head_of",
    "heads",
    "layer_maps",
    "load_teacher",
    "measured_export",
    "memory_estimate",
    "models",
    "preflight_report",
    "recipes",
    "report",
    "schedules",
    "share_encoder",
    "student_from_teacher",
    "students",
    "suggest_student",
    "teachers",
    "terms",
    "types",
]

_HOMES = {
    "data_augmentation": ("MaskedWordAugmentation",),
    "data_collator": ("DataCollatorForRowSeededMasking",),
    "export": ("Export", "export_model", "measured_export"),
    "heads": ("Head", "head_of"),
    "invariances": ("InvarianceReport", "check_invariances"),
    "memory": ("memory_estimate",),
    "objective": ("Objective",),
    "report": ("DistillationReport", "distillation_report"),
    "rehearsal": ("PreflightReport", "preflight_report"),
    "schedules": ("Constant", "Cosine", "During", "Linear"),
    "students": ("share_encoder", "student_from_teacher", "suggest_student"),
    "teachers": (*(name for name in __all__ if name.endswith("Teacher")), "cache_teacher", "load_teacher"),
    "terms": tuple(name for name in __all__ if name.endswith("Term")),
    "trainer": ("DistillationTrainer",),
    "training_args": ("DistillationTrainingArguments",),
    "models.encoder_lm": tuple(name for name in __all__ if name.startswith("EncoderLM")),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(f"hf_distill.{_HOME_OF[name]}"), name)
    if name in __all__:
        return import_module(f"hf_distill.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

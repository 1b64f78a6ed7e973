"""The commands: what each does, and which options it has. Nothing here imports torch."""

from dataclasses import dataclass

from hf_distill.cli.arguments import (
    BaselineOptions,
    DataOptions,
    ObjectiveOptions,
    ResumeOptions,
    StudentOptions,
    TeacherOptions,
)


@dataclass(frozen=True)
class Command:
    """One command. The module of its name has the function `run`, which is called with what was parsed."""

    summary: str
    example: str
    groups: tuple[type, ...]
    """Dataclasses of options, in the order in which `run` takes them."""
    trains: bool = False
    """Whether it has the options of `DistillationTrainingArguments` too, which `run` takes last."""


COMMANDS = {
    "distill": Command(
        "teach a student, from ids or paths to a model on disk with evidence",
        "--teacher TEACHER --num_hidden_layers 3 --dataset DATA --output_dir OUT",
        (TeacherOptions, StudentOptions, DataOptions, ObjectiveOptions, BaselineOptions, ResumeOptions),
        trains=True,
    ),
}

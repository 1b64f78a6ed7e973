"""The commands: what each does, and which options it has. Nothing here imports torch."""

from dataclasses import dataclass

from hf_distill.cli.arguments import (
    BaselineOptions,
    BudgetOptions,
    CacheOptions,
    CheckOptions,
    DataOptions,
    EvaluationOptions,
    ExportOptions,
    FinishedOptions,
    ModelOptions,
    ObjectiveOptions,
    OptionalTeacherOptions,
    OutputOptions,
    ReportOptions,
    ResumeOptions,
    SearchOptions,
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
    needs_output: bool = True
    """Whether, where it trains, it cannot do without `output_dir`."""


COMMANDS = {
    "distill": Command(
        "teach a student, from ids or paths to a model on disk with evidence",
        "--teacher TEACHER --num_hidden_layers 3 --dataset DATA --output_dir OUT",
        (TeacherOptions, StudentOptions, DataOptions, ObjectiveOptions, BaselineOptions, ResumeOptions),
        trains=True,
    ),
    "teacher": Command(
        "fine-tune a model on the labels, to be a teacher",
        "--model MODEL --task text-classification --dataset DATA --output_dir OUT",
        (ModelOptions, DataOptions, ResumeOptions),
        trains=True,
    ),
    "student": Command(
        "make a student out of a teacher, and write it without training it",
        "--teacher TEACHER --num_hidden_layers 3 --output_dir OUT",
        (TeacherOptions, StudentOptions, OutputOptions),
    ),
    "cache": Command(
        "ask a teacher once about every row, and keep its answers to train from",
        "--teacher TEACHER --dataset DATA --output_dir OUT",
        (TeacherOptions, DataOptions, CacheOptions),
    ),
    "check": Command(
        "rehearse a step and try the promised equalities, without training",
        "--teacher TEACHER --num_hidden_layers 3 --dataset DATA",
        (TeacherOptions, StudentOptions, DataOptions, ObjectiveOptions, CheckOptions),
        trains=True,
        needs_output=False,
    ),
    "evaluate": Command(
        "measure a model, alone or beside a teacher",
        "--model MODEL --dataset DATA",
        (ModelOptions, OptionalTeacherOptions, DataOptions, EvaluationOptions),
    ),
    "report": Command(
        "compare finished models: what was gained and lost, as a page, plots, JSON and Markdown",
        "--teacher TEACHER --student STUDENT --baseline BASELINE --dataset DATA --output_dir OUT",
        (FinishedOptions, TeacherOptions, DataOptions, ReportOptions),
    ),
    "tune": Command(
        "find temperature, alpha and learning rate by trying, with Optuna",
        "--teacher TEACHER --num_hidden_layers 3 --dataset DATA --output_dir OUT --n_trials 20",
        (TeacherOptions, StudentOptions, DataOptions, ObjectiveOptions, SearchOptions),
        trains=True,
    ),
    "export": Command(
        "write a model for ONNX Runtime or torch.export, compared with it on rows",
        "MODEL --dataset DATA --output_dir OUT",
        (ModelOptions, DataOptions, ExportOptions),
    ),
    "shrink": Command(
        "find a student that fits a budget by measuring, then do the whole job",
        "MODEL --budget '3x faster' --dataset DATA --output_dir OUT",
        (TeacherOptions, BudgetOptions, DataOptions, ResumeOptions),
        trains=True,
    ),
}

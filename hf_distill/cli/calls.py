"""From groups of options to the arguments of the library."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_distill import recipes
from hf_distill.cli.arguments import DataOptions, ObjectiveOptions, StudentOptions
from hf_distill.cli.option_files import plain_values
from hf_distill.data_sources import load_splits, some_rows, train_and_evaluation
from hf_distill.errors import ConfigurationError
from hf_distill.jobs.data import Data, job_data
from hf_distill.jobs.evidence import arguments_of
from hf_distill.jobs.models import StudentSource, task_of_model
from hf_distill.objective import Objective
from hf_distill.processing import ROLES, TASKS
from hf_distill.training_args import DistillationTrainingArguments


RECIPES: dict[str, Callable[..., Objective]] = {
    "hinton": recipes.hinton,
    "dkd": recipes.dkd,
    "dist": recipes.dist,
    "uld": recipes.uld,
    "patient_kd": recipes.patient_kd,
    "distilbert": recipes.distilbert,
    "tinybert": recipes.tinybert,
    "minilm": recipes.minilm,
    "minilmv2": recipes.minilmv2,
    "rkd": recipes.rkd,
    "vid": recipes.vid,
    "crd": recipes.crd,
    "nst": recipes.nst,
    "mobilebert_like": recipes.mobilebert_like,
    "distil_whisper": recipes.distil_whisper,
}


def task_of(name: str | None, model: str) -> str:
    """The task that was named, or else that of the model."""
    if name is not None and name not in TASKS:
        raise ConfigurationError(
            f"task={name!r} is not known; these are: {', '.join(TASKS)}. Models with other heads learn by "
            "`DistillationTrainer`, in Python."
        )
    return name or task_of_model(model)


def data_of(options: DataOptions, task: str, seed: int, trains: bool = True) -> Data:
    """The rows."""
    splits = load_splits(options.dataset, options.dataset_config)
    others = None if options.eval_dataset is None else load_splits(options.eval_dataset)
    train_split = options.train_split if trains else None
    train, evaluation = train_and_evaluation(splits, train_split, options.eval_split, others, seed)
    return job_data(
        task,
        None if train is None else some_rows(train, options.max_train_samples),
        some_rows(evaluation, options.max_eval_samples),
        {role: getattr(options, f"{role}_column") for role in ROLES},
        {name: getattr(options, name) for name in ("max_length", "max_target_length", "sampling_rate")},
    )


def rows_unseen_by(model: str, options: DataOptions, task: str) -> Data:
    """The rows to measure a finished model on.

    Of the data set that a job has trained the model on, they are those that the job has held out, and the rows to
    train on are there as well.
    """
    job = arguments_of(model)
    if "dataset" not in job or Path(job["dataset"]).resolve() != Path(options.dataset).resolve():
        return data_of(options, task, 0, trains=False)
    names = ("train_split", "eval_split", "eval_dataset", "dataset_config")
    split = {name: job[name] for name in names if name in job and getattr(options, name) == getattr(DataOptions, name)}
    return data_of(replace(options, **split), task, int(job.get("seed", 42)))


def objective_taught_by(student: str) -> Objective | None:
    """By what a job has taught a student, if one has."""
    job = arguments_of(student)
    if "teacher" not in job:
        return None
    numbers: dict[str, Any] = {name: float(job[name]) for name in ("temperature", "alpha") if name in job}
    args = DistillationTrainingArguments(use_cpu=True, **numbers)
    what = ObjectiveOptions(**{name: job[name] for name in ("recipe", "recipe_args") if name in job})
    return objective_of(what, args) or recipes.hinton(args.temperature, args.alpha)


def source_of(options: StudentOptions) -> StudentSource:
    """Where the student comes from."""
    layers: Any = options.layers
    if layers[:1].isdecimal():
        try:
            layers = [int(number) for number in layers.split(",")]
        except ValueError as error:
            raise ConfigurationError(f"layers={layers!r} is neither a rule nor numbers, as 0,3,11.") from error
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads")
    sizes = {name: getattr(options, name) for name in (*names, "intermediate_size", "embedding_size")}
    return StudentSource(
        options.student, options.from_scratch, sizes | ({"layers": layers} if layers != "uniform" else {})
    )


def kept_layers_of(given: str | None) -> list[int] | dict[str, list[int]] | None:
    """The layers of which a cache keeps the hidden states, by the sides of the teacher where those are named."""
    if given is None:
        return None
    text = given if given.lstrip()[:1] in ("[", "{") else f"{{{given}}}" if ":" in given else f"[{given}]"
    layers = plain_values(text, f"layers={given!r}")
    sides = list(layers.values()) if isinstance(layers, dict) else [layers]
    if not sides or any(not isinstance(side, list) or any(type(each) is not int for each in side) for side in sides):
        raise ConfigurationError(
            f"layers={given!r} names no layers to keep. Give their numbers, as 0,3,-1, or those of each side, as "
            "'encoder: [3, 6], decoder: [6]'."
        )
    return layers  # type: ignore[no-any-return]


def objective_of(options: ObjectiveOptions, args: Any) -> Objective | None:
    """The recipe; None for the default one, which the Trainer makes of its arguments."""
    given = options.recipe_args or ""
    values = plain_values(given if given.lstrip().startswith("{") else f"{{{given}}}", f"recipe_args={given!r}")
    if options.recipe == "hinton":
        if values:
            raise ConfigurationError(
                f"recipe_args={given!r} is given, and hinton is told by --temperature and --alpha. Use those."
            )
        return None
    changed = [f"--{name}={getattr(args, name)}" for name in ("temperature", "alpha") if _is_changed(args, name)]
    if changed:
        raise ConfigurationError(
            f"{' and '.join(changed)} is of the recipe hinton, and the recipe is {options.recipe}. Give its own "
            f"arguments by --recipe_args, as '{changed[0].removeprefix('--').replace('=', ': ')}'."
        )
    try:
        return RECIPES[options.recipe](**values)
    except TypeError as error:
        raise ConfigurationError(f"recipe_args={given!r} does not fit {options.recipe}: {error}.") from error


def _is_changed(args: Any, name: str) -> bool:
    return bool(getattr(args, name) != type(args).__dataclass_fields__[name].default)

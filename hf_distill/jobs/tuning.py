"""Which temperature, alpha and learning rate suit a pair and its data, found by trying."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from hf_distill.errors import ConfigurationError, DistillationError, NonFiniteError
from hf_distill.jobs.models import StudentSource, make_student
from hf_distill.jobs.pairs import Pair
from hf_distill.jobs.training import trainer_for
from hf_distill.objective import Objective
from hf_distill.trainer import DistillationTrainer
from hf_distill.training_args import DistillationTrainingArguments


STUDY = "study.db"
TO_BE_HIGH = ("accuracy", "f1", "macro_f1", "micro_f1", "exact_match", "pearson", "agreement")
"""Scores of which more is better; of all others less is."""


@dataclass(frozen=True)
class SearchSpace:
    """From where to where to look.

    Raises:
        ConfigurationError: if nothing lies there that can be trained with.
    """

    temperature: tuple[float, float] = (1.0, 8.0)
    alpha: tuple[float, float] = (0.0, 0.9)
    learning_rate: tuple[float, float] = (1e-5, 1e-3)

    def __post_init__(self) -> None:
        faults = [
            f"{name} is looked for from {low} to {high}, and it takes two numbers {what}, the lower one first"
            for name, (low, high), largest, what in (
                ("temperature", self.temperature, math.inf, "above 0"),
                ("alpha", self.alpha, 1, "from 0 to 1"),
                ("learning_rate", self.learning_rate, math.inf, "above 0"),
            )
            if not (0 <= low <= high <= largest and math.isfinite(high) and (low > 0 or name == "alpha"))
        ]
        if faults:
            raise ConfigurationError(
                f"there is nothing to look for: {'; '.join(faults)}. Change `min_…` and `max_…` of these."
            )

    def suggestions(self, is_default_objective: bool) -> Callable[[Any], dict[str, float]]:
        """What Optuna tries. A recipe has its own temperature and weights, so of it the learning rate alone."""

        def suggested(trial: Any) -> dict[str, float]:
            found = {"learning_rate": trial.suggest_float("learning_rate", *self.learning_rate, log=True)}
            if is_default_objective:
                found["temperature"] = trial.suggest_float("temperature", *self.temperature)
                found["alpha"] = trial.suggest_float("alpha", *self.alpha)
            return found

        return suggested


def main_score(pair: Pair) -> str:
    """The score that counts most in a task."""
    if pair.data.task.scores is None or not pair.data.has_labels:
        return "perplexity" if pair.data.has_labels else "loss"
    if pair.student_reading.problem == "regression":
        return "mean_squared_error"
    if pair.student_reading.problem == "multi_label_classification":
        return "micro_f1"
    return "accuracy" if pair.student_reading.problem is not None else "f1"


def tune(
    pair: Pair,
    source: StudentSource,
    args: DistillationTrainingArguments,
    objective: Objective | None = None,
    space: SearchSpace | None = None,
    n_trials: int = 20,
    metric: str | None = None,
) -> Mapping[str, Any]:
    """The best of some trainings, by `Trainer.hyperparameter_search` with Optuna.

    A training that is worse than the median of the earlier ones at the same evaluation is broken off, and one whose
    loss is no number is left out. The study is kept in `study.db` in `args.output_dir`; called again, it goes on until
    it has `n_trials`.

    Args:
        pair: teacher, student and data.
        source: makes the student anew for each training.
        args: with an `eval_strategy`, or there is one evaluation an epoch.
        objective: in place of the default one.
        space: where to look.
        n_trials: how many trainings.
        metric: the score to be best, without the prefix `eval_`; `main_score` by default.

    Returns:
        `metric`, its best `value`, and the `arguments` that gave it.

    Raises:
        ConfigurationError: if the metric is not measured, the study is one for another metric, or no training could
            be measured.
        ModuleNotFoundError: without Optuna.
    """
    import optuna  # optional

    if n_trials < 1:
        raise ConfigurationError(f"n_trials={n_trials} tries nothing. Ask for one training or more.")
    space, metric = space or SearchSpace(), metric or main_score(pair)
    args = copy.copy(args)
    args.eval_strategy = "epoch" if args.eval_strategy == "no" else args.eval_strategy
    args.save_strategy = "no"
    args.preflight = False
    if objective is None:
        args.alpha = space.alpha[0]
        if space.alpha[1] > 0 and not pair.data.has_labels:
            raise ConfigurationError(
                f"no column of labels was found, and alpha, their weight, is looked for from {space.alpha[0]} to "
                f"{space.alpha[1]}. Name it by `label_column`, or learn from the teacher alone by `max_alpha=0`."
            )
    args.report_agreement = args.report_agreement or metric == "agreement"

    def new_student(trial: Any = None) -> PreTrainedModel:
        return make_student(source, pair.teacher, pair.data.task_name, args.seed)

    trainer = trainer_for(
        None,
        pair.data,
        pair.student_reading,
        args,
        pair.teacher,
        objective,
        pair.teacher_processor,
        model_init=new_student,
    )
    rows: Any = trainer.eval_dataset
    few = rows.select(range(min(len(rows), args.per_device_eval_batch_size)))
    _score(trainer.predict(few, metric_key_prefix="eval").metrics or {}, metric)  # or a slip is found after a training
    folder = Path(str(args.output_dir))
    folder.mkdir(parents=True, exist_ok=True)
    study = _study(folder, metric)
    states = optuna.trial.TrialState
    left = n_trials - len(study.get_trials(states=(states.COMPLETE, states.PRUNED)))
    if left > 0:
        _search(trainer, study, space.suggestions(objective is None), metric, left)
    best = study.best_trial
    return {"metric": metric, "value": best.value, "trial": best.number, "arguments": dict(best.params)}


def _search(
    trainer: DistillationTrainer, study: Any, suggested: Callable[[Any], dict[str, float]], metric: str, count: int
) -> None:
    import optuna  # optional

    args = trainer.args
    try:
        trainer.hyperparameter_search(
            hp_space=suggested,
            compute_objective=lambda metrics: _score(metrics, metric),
            n_trials=count,
            direction=study.direction.name.lower(),
            backend="optuna",
            study_name=study.study_name,
            storage=_storage(Path(str(args.output_dir))),
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=args.seed + len(study.trials)),  # or it draws the same again
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
            catch=(NonFiniteError,),
        )
    except ValueError as error:
        if isinstance(error, DistillationError) or study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
            raise
        raise ConfigurationError(
            f"none of the {len(study.trials)} trainings that were tried could be measured ({error}). Where the loss "
            "was no number, lower `max_learning_rate`."
        ) from error


def _storage(folder: Path) -> str:
    return f"sqlite:///{folder}/{STUDY}"


def _study(folder: Path, metric: str) -> Any:
    """The study of a folder, or a new one.

    Raises:
        ConfigurationError: if it looks for another metric.
    """
    import optuna  # optional

    study = optuna.create_study(
        study_name="hf_distill",
        storage=_storage(folder),
        direction="maximize" if metric in TO_BE_HIGH else "minimize",
        load_if_exists=True,
    )
    before = study.user_attrs.get("metric", metric)
    if before != metric:
        raise ConfigurationError(
            f"{folder / STUDY} holds {len(study.trials)} trainings, of which the best {before} is looked for, and "
            f"metric={metric!r} is given. Go on with {before}, or take another output_dir."
        )
    study.set_user_attr("metric", metric)
    return study


def _score(metrics: Mapping[str, float], metric: str) -> float:
    if f"eval_{metric}" not in metrics:
        known = ", ".join(name.removeprefix("eval_") for name in metrics if name.startswith("eval_"))
        raise ConfigurationError(f"metric={metric!r} is not measured; these are: {known}.")
    return metrics[f"eval_{metric}"]

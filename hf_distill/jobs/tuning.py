"""Which temperature, alpha and learning rate suit a pair and its data, found by trying."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from hf_distill.errors import ConfigurationError
from hf_distill.jobs.models import StudentSource, make_student
from hf_distill.jobs.pairs import Pair
from hf_distill.jobs.training import trainer_for
from hf_distill.objective import Objective
from hf_distill.training_args import DistillationTrainingArguments


STUDY = "study.db"
TO_BE_HIGH = ("accuracy", "f1", "macro_f1", "micro_f1", "exact_match", "pearson", "agreement")
"""Scores of which more is better; of all others less is."""


@dataclass(frozen=True)
class SearchSpace:
    """From where to where to look."""

    temperature: tuple[float, float] = (1.0, 8.0)
    alpha: tuple[float, float] = (0.0, 0.9)
    learning_rate: tuple[float, float] = (1e-5, 1e-3)

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

    A training that is worse than the median of the earlier ones at the same evaluation is broken off. The study is
    kept in `study.db` in `args.output_dir`; called again, it goes on until it has `n_trials`.

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
        ConfigurationError: if the metric is not measured.
        ModuleNotFoundError: without Optuna.
    """
    import optuna  # optional

    metric = metric or main_score(pair)
    args = copy.copy(args)
    args.eval_strategy = "epoch" if args.eval_strategy == "no" else args.eval_strategy
    args.save_strategy = "no"
    args.preflight = False

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
    Path(str(args.output_dir)).mkdir(parents=True, exist_ok=True)
    study: dict[str, Any] = {
        "study_name": "hf_distill",
        "storage": f"sqlite:///{args.output_dir}/{STUDY}",
        "direction": "maximize" if metric in TO_BE_HIGH else "minimize",
        "load_if_exists": True,
        "sampler": optuna.samplers.TPESampler(seed=args.seed),
        "pruner": optuna.pruners.MedianPruner(n_startup_trials=4),
    }
    left = n_trials - len(optuna.create_study(**study).get_trials(states=_ended(optuna)))
    if left > 0:
        trainer.hyperparameter_search(
            hp_space=(space or SearchSpace()).suggestions(objective is None),
            compute_objective=lambda metrics: _score(metrics, metric),
            n_trials=left,
            direction=study.pop("direction"),
            backend="optuna",
            **study,
        )
    best = optuna.load_study(study_name=study["study_name"], storage=study["storage"]).best_trial
    return {"metric": metric, "value": best.value, "trial": best.number, "arguments": dict(best.params)}


def _ended(optuna: Any) -> tuple[Any, ...]:
    return optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED


def _score(metrics: Mapping[str, float], metric: str) -> float:
    if f"eval_{metric}" not in metrics:
        known = ", ".join(name.removeprefix("eval_") for name in metrics if name.startswith("eval_"))
        raise ConfigurationError(f"metric={metric!r} is not measured; these are: {known}.")
    return metrics[f"eval_{metric}"]

"""The report of a distillation, made by the trainer's own teacher, student, head and data."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from transformers import PreTrainedModel
from transformers.trainer_utils import unwrap_peft_model

from hf_distill.errors import ClassMismatchError, ConfigurationError, EmptyDatasetError, MissingTeacherError
from hf_distill.export import Export
from hf_distill.position_tables import max_positions
from hf_distill.rehearsal import obstacle, rehearsed
from hf_distill.report import statistics
from hf_distill.report.answers import Answers, collect
from hf_distill.report.cost import cost_of
from hf_distill.report.examples import differing_rows
from hf_distill.report.resampling import Bootstrap, Sums, comparison, total
from hf_distill.report.results import (
    Calibration,
    CalibrationBin,
    ClassResult,
    Cost,
    DistillationReport,
    ExportResult,
    Imitation,
    MetricResult,
    ModelResult,
)
from hf_distill.report.sources import hub_id
from hf_distill.report.term_words import term_settings
from hf_distill.report.user_metrics import user_metrics
from hf_distill.teachers import CachedTeacher, online_teachers


MAX_CURVE_POINTS = 500
UNTRIED = "The terms were not tried"
"""How a note on them begins."""


def distillation_report(
    trainer: Any,
    baseline: PreTrainedModel | nn.Module | None = None,
    eval_dataset: Any = None,
    *,
    confidence: float = 0.95,
    num_resamples: int = 1000,
    batch_sizes: Sequence[int] = (1, 8, 32),
    lengths: Sequence[int] | None = None,
    num_examples: int = 12,
    exports: Sequence[Export] = (),
    seed: int = 0,
) -> DistillationReport:
    """Teacher and student of a [`DistillationTrainer`] side by side, on the same rows.

    The metrics are those of the head, or those of the trainer's `compute_metrics`, if it has one. All models are left
    as they were.

    Args:
        trainer: after training, or made for the report of two models that are trained already.
        baseline: the student that learned from the labels alone, of the student's classes and inputs. With it the
            report says whether distilling helped.
        eval_dataset: the rows; those of the trainer by default, the first set of several.
        confidence: of the intervals, between 0 and 1.
        num_resamples: of the bootstrap and of the test, at least 1.
        batch_sizes: at which forward passes are timed; none leaves the timing out.
        lengths: tokens of a row at which they are timed; the median and the longest of the rows by default.
        num_examples: rows to show on which the models differ.
        exports: what [`export_model`] made of the student.
        seed: of the resampling.

    Raises:
        MissingTeacherError: if the trainer has no teacher.
        EmptyDatasetError: if there are no rows.
        ClassMismatchError: if the baseline has other classes than the student.
        ConfigurationError: if a number lies outside its range, or weights are sharded over processes.
    """
    _check(trainer, baseline, confidence, num_resamples)
    dataset = trainer.eval_dataset if eval_dataset is None else eval_dataset
    if isinstance(dataset, Mapping):
        dataset = next(iter(dataset.values()), None)
    answers = collect(trainer, baseline, dataset if dataset is not None else ())
    if not answers.texts:
        raise EmptyDatasetError(
            "there are no rows to report on. Pass `eval_dataset=`, or give the trainer one with at least one row."
        )
    bootstrap = Bootstrap(answers.sums, num_resamples, confidence, seed)
    metrics = _metrics(trainer, answers.sums, bootstrap, seed)
    if trainer.compute_metrics is not None:
        models = {"teacher": _only_teacher(trainer), "student": trainer.model, "baseline": baseline}
        metrics = {**user_metrics(trainer, models, dataset, num_resamples, confidence, seed), **metrics}
    rehearsal = rehearsed(trainer)
    return DistillationReport(
        task=type(trainer.head).__name__,
        num_rows=len(answers.texts),
        confidence=confidence,
        num_resamples=num_resamples,
        models=_models(trainer, baseline, answers, bootstrap, batch_sizes, lengths),
        metrics=metrics,
        imitation=_imitation(answers.sums, bootstrap),
        classes=_classes(trainer, answers.sums),
        examples=differing_rows(trainer.head, answers, num_examples),
        curves=_curves(trainer.state.log_history),
        terms=rehearsal.terms,
        exports=tuple(map(_export, exports)),
        settings=_settings(trainer),
        notes=_notes(trainer, baseline, metrics, rehearsal.terms, answers),
    )


def _check(trainer: Any, baseline: Any, confidence: float, num_resamples: int) -> None:
    if trainer.teacher is None:
        raise MissingTeacherError(
            "a report compares a student with its teacher, and the trainer has none. Pass `teacher=` to the trainer."
        )
    faults = []
    if not 0 < confidence < 1:
        faults.append(f"`confidence` must lie between 0 and 1, got {confidence}; 0.95 is usual")
    if num_resamples < 1:
        faults.append(f"`num_resamples` must be at least 1, got {num_resamples}; 1000 is usual")
    if (reason := obstacle(trainer)) is not None:
        faults.append(
            f"a report needs models that are whole on one process, and here {reason}; save them, and report "
            "on them in one process"
        )
    if faults:
        raise ConfigurationError("; ".join(faults) + ".")
    if baseline is None or trainer.head.class_axis is None or trainer.head.is_language_model:
        return
    own, other = (getattr(getattr(model, "config", None), "id2label", None) for model in (trainer.model, baseline))
    if own != other:
        raise ClassMismatchError(
            f"the student's classes are {own} and the baseline's {other}, so their answers cannot be compared. Pass a "
            "`baseline=` of the student's classes, in the same order."
        )


def _metrics(trainer: Any, sums: Mapping[str, Sums], bootstrap: Bootstrap, seed: int) -> dict[str, MetricResult]:
    results = {}
    for name, metric in statistics.metrics_of(trainer.head, sums["student"]).items():
        against = [other for other in ("baseline", "teacher") if other in sums]
        compared = {other: comparison(bootstrap, metric.statistic, sums, "student", other, seed) for other in against}
        retention = None
        if "teacher" in sums:
            pair = [bootstrap.values(metric.statistic, model) for model in ("student", "teacher")]
            (own, owns), (best, bests) = pair if metric.higher_is_better else reversed(pair)
            with np.errstate(divide="ignore", invalid="ignore"):
                retention = bootstrap.interval(own / best, owns / bests)
        results[name] = MetricResult(
            metric.higher_is_better,
            {model: bootstrap.estimate(metric.statistic, model) for model in _in_order(sums)},
            retention,
            compared.get("baseline"),
            compared.get("teacher"),
        )
    return results


def _in_order(models: Mapping[str, Any]) -> list[str]:
    return [name for name in ("teacher", "baseline", "student") if name in models]


def _imitation(sums: Mapping[str, Sums], bootstrap: Bootstrap) -> dict[str, Imitation]:
    parts = {
        "agreement": (statistics.agreement, "agreed"),
        "kl": (statistics.kl_to_teacher, "kl"),
        "distance": (statistics.distance_to_teacher, "squared_distance"),
    }
    return {
        model: Imitation(
            **{
                name: bootstrap.estimate(statistic, model)
                for name, (statistic, reads) in parts.items()
                if reads in sums[model]
            }
        )
        for model in ("baseline", "student")
        if model in sums and "compared" in sums[model]
    }


def _classes(trainer: Any, sums: Mapping[str, Sums]) -> tuple[ClassResult, ...]:
    if "hits" not in sums["student"]:
        return ()
    names = trainer.model.config.id2label
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = {model: statistics.class_f1(total(sums[model]))[0] for model in _in_order(sums)}
    support = sums["student"]["labelled"].sum(0)
    return tuple(
        ClassResult(
            names.get(index, str(index)), int(number), {model: float(f1[index]) for model, f1 in scores.items()}
        )
        for index, number in enumerate(support)
    )


def _models(
    trainer: Any,
    baseline: Any,
    answers: Answers,
    bootstrap: Bootstrap,
    batch_sizes: Sequence[int],
    lengths: Sequence[int] | None,
) -> dict[str, ModelResult]:
    batch = answers.sample
    own = {
        name: value for name, value in trainer._student_inputs(batch).items() if name not in trainer.head.label_names
    }
    inputs = {"student": own | trainer.head.derived_inputs(trainer.model, batch)}
    models = {"teacher": _only_teacher(trainer), "student": trainer.model}
    if models["teacher"] is not None:
        inputs["teacher"] = online_teachers(trainer.teacher)[0].inputs(batch)
    if baseline is not None:
        models["baseline"] = baseline
        inputs["baseline"] = own | trainer.head.derived_inputs(baseline, batch)
    lengths = _lengths(answers.lengths, models.values()) if lengths is None else lengths
    results = {}
    for name in _in_order(models):
        model = models[name]
        if model is None:
            parameters = sum(each.model.num_parameters() for each in online_teachers(trainer.teacher))
            cost = Cost(parameters, 0) if parameters else None  # answers that were kept
            calibration = _calibration(answers.sums, bootstrap, name)
            results[name] = ModelResult(type(trainer.teacher).__name__, None, cost, calibration)
            continue
        was_training = model.training
        with trainer.compute_loss_context_manager():
            cost = cost_of(model.eval(), inputs[name], batch_sizes, lengths or ())
        model.train(was_training)
        source = hub_id(model)
        results[name] = ModelResult(
            type(unwrap_peft_model(model)).__name__, source, cost, _calibration(answers.sums, bootstrap, name)
        )
    return results


def _lengths(found: Sequence[int], models: Iterable[Any]) -> list[int]:
    """The median and the longest row, as far as all models can read them.

    None for a classifier that is an encoder–decoder: it reads its answer where a row ends, so rows cannot be cut.
    """
    present = [model for model in models if model is not None]
    if not found or any(model.config.is_encoder_decoder and "Classif" in type(model).__name__ for model in present):
        return []
    limits = [limit for model in present if (limit := max_positions(model)) is not None]
    return sorted({min([length, *limits]) for length in (int(np.median(found)), max(found))})


def _only_teacher(trainer: Any) -> Any:
    """The teacher's model, if it is one."""
    online = online_teachers(trainer.teacher)
    return online[0].model if online == [trainer.teacher] else None


def _calibration(sums: Mapping[str, Sums], bootstrap: Bootstrap, model: str) -> Calibration | None:
    if "bin_answers" not in sums.get(model, {}):
        return None
    counted = {name: values[0] for name, values in total(sums[model]).items() if name.startswith("bin_")}
    number = counted["bin_answers"]
    bins = tuple(
        CalibrationBin(
            confidence=float(counted["bin_confidence"][index] / number[index]),
            accuracy=float(counted["bin_correct"][index] / number[index]),
            share=float(number[index] / number.sum()),
        )
        for index in np.flatnonzero(number)
    )
    return Calibration(bootstrap.estimate(statistics.calibration_error, model), bins)


def _curves(history: Sequence[Mapping[str, float]]) -> dict[str, tuple[tuple[int, float], ...]]:
    """Losses and scores of an evaluation by step, of long runs evenly spread ones."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for log in history:
        for name, value in log.items():
            is_speed = name.endswith(("_runtime", "_per_second", "_time"))
            if name.startswith(("loss", "eval_", "weight/", "temperature/")) and not is_speed:
                curves.setdefault(name, []).append((int(log["step"]), float(value)))
    return {name: tuple(points[:: 1 + len(points) // MAX_CURVE_POINTS]) for name, points in curves.items()}


def _export(made: Export) -> ExportResult:
    """An export as the report shows it, without the path."""
    name = "ONNX Runtime" if made.format == "onnx" else "torch.export"
    return ExportResult(
        f"{name}, 8-bit weights" if made.int8 else name,
        made.num_bytes,
        made.num_rows,
        made.max_difference,
        made.agreement,
        made.batch_ms,
        made.model_batch_ms,
        made.speedup,
    )


def _settings(trainer: Any) -> dict[str, str]:
    args = trainer.args
    device = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else str(args.device)
    measured = {
        "date": date.today().isoformat(),
        "measured on": f"{device}, CPU threads: {torch.get_num_threads()}",
        "versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
    }
    if trainer.state.global_step == 0:  # another one has trained the student, in a way of its own
        return measured
    return {
        **term_settings(trainer.distillation_objective),
        "learning rate": f"{args.learning_rate:g}",
        "batch size": str(args.train_batch_size * args.gradient_accumulation_steps * args.world_size),
        "steps": str(trainer.state.global_step),
        "seed": str(args.seed),
        **measured,
    }


def _notes(trainer: Any, baseline: Any, metrics: Any, terms: Any, answers: Answers) -> tuple[str, ...]:
    is_cached = isinstance(trainer.teacher, CachedTeacher)
    gives_top_k = is_cached and trainer.teacher.gives_top_k
    checks = {
        "No student trained on the labels alone was given, so the report cannot say whether distilling helped.": (
            baseline is None
        ),
        "The rows have no labels, or the head has no metric of single rows: pass `compute_metrics` to the trainer.": (
            not metrics
        ),
        "Student and teacher write in other tokens, so they are not compared token by token.": (
            not trainer._alignment.same_classes
        ),
        "Only the likeliest tokens of the teacher are kept, so it has no scores of its own here, and KL is taken over "
        "these tokens and all others together.": gives_top_k,
        f"{UNTRIED}: it is not known how the student was taught, or there are no rows to train on.": not terms,
        "The teacher is no single model, so it was not timed.": _only_teacher(trainer) is None and not is_cached,
        "The teacher is a cache of answers: it was not timed, and `compute_metrics` knows nothing of it.": is_cached,
        "Perplexity and accuracy are those of the next token given the true text before it; no text was generated.": (
            trainer.head.is_language_model
        ),
    }
    return tuple(note for note, holds in checks.items() if holds)

"""The equalities that this library promises, tried on a user's own models and rows."""

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate.utils.operations import recursively_apply
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers.trainer_utils import unwrap_peft_model

from hf_distill.errors import ConfigurationError
from hf_distill.heads import ObjectDetectionHead
from hf_distill.heads.base import num_rows
from hf_distill.position_tables import max_positions
from hf_distill.tally import is_packed
from hf_distill.teachers import OnlineTeacher, online_teachers, single_teachers
from hf_distill.trial_batches import (
    collated,
    gradient,
    gradient_obstacle,
    has_shards,
    leaving_no_trace,
    norm,
    sampled_rows,
)
from hf_distill.types import IGNORED_LABEL, Signals, TopKLogits


MAX_WEIGHTS_IN_FLOAT64 = 50_000_000
"""Of student and teacher together; larger models are tried in float32."""
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3}
TEMPERATURE_TOLERANCE = 0.2
EXTRA_PADDING = 8
BATCH_NORM = "batch normalisation takes its statistics over a micro-batch, so this cannot hold while it is trained"
ROWS_COMPARED = "each row is compared with the others of its micro-batch, so this cannot hold"
ROUTED = "the own loss balances the experts of a micro-batch, so this cannot hold for its labels"
POOLED_LABELS = "a detector's own loss is divided by the objects of a micro-batch, so this cannot hold for its labels"


@dataclass(frozen=True)
class Invariance:
    """One equality."""

    name: str
    held: bool | None
    """None if it could not be tried."""
    difference: float | None
    """‖g − g′‖ / ‖g′‖ of the gradients, or of what `name` says; 0 if equal."""
    tolerance: float
    reason: str = ""
    """Why it could not be tried, or cannot hold; or what else to know."""

    def __str__(self) -> str:
        state = {True: "held", False: "BROKEN", None: "not tried"}[self.held]
        numbers = "" if self.difference is None else f"{self.difference:.2g} (tolerance {self.tolerance:.0e})"
        return f"{self.name:<40} {state:<10} {numbers:<28} {self.reason}".rstrip()


@dataclass(frozen=True)
class InvarianceReport:
    """Every equality; `str(report)` has a line for each."""

    checks: tuple[Invariance, ...]
    dtype: torch.dtype
    """What they were computed in."""

    @property
    def held(self) -> bool:
        """Whether none is broken."""
        return all(check.held is not False for check in self.checks)

    def __getitem__(self, name: str) -> Invariance:
        return next(check for check in self.checks if check.name == name)

    def __str__(self) -> str:
        return "\n".join(str(check) for check in self.checks)


def check_invariances(trainer: Any, num_rows: int = 8) -> InvarianceReport:
    """Whether the equalities of a [`DistillationTrainer`] hold for its own models, objective and rows.

    | name | what is compared |
    |---|---|
    | accumulation | the gradient of one batch, and of its halves and its single rows accumulated |
    | order of rows | the gradient of the batch, and of the batch reversed |
    | padding | the gradient of the batch, and of the batch padded up to 8 tokens further on the right |
    | temperature of `<term>` | its gradient at a high temperature and at twice that; factors of T² make them equal |
    | teacher repeats itself | its scores in two calls |
    | teacher unchanged | its weights and buffers before and after a step of the student |

    All run on copies of student and teacher, in float64 where both have 50 million weights at most and can compute in
    it, else in float32. Dropout is off; batch normalisation is in train mode, and breaks the first three by what it
    is, as dual encoders break accumulation. Nothing of the trainer changes. With several processes, call it on all of
    them.

    Raises:
        ConfigurationError: if weights are sharded, the student has reversible layers (Reformer), or the training data
            has no row that can be read, or none is asked for.
    """
    if has_shards(trainer) or trainer.get_tp_size() > 1:
        raise ConfigurationError(
            "the weights are sharded, and the checks need copies of whole models. Call `check_invariances` in a "
            "process without FSDP, DeepSpeed and tensor parallelism; what it finds holds there too."
        )
    if reason := gradient_obstacle(trainer.model):
        raise ConfigurationError(
            f"{reason}, dropout included, so nothing can be compared. Train it without the checks."
        )
    if num_rows < 1:
        raise ConfigurationError(f"num_rows={num_rows} rows are to be checked on. Give 1 or more; 8 is usual.")
    with leaving_no_trace(trainer.model):  # a data set may draw what it makes of a row
        rows = sampled_rows(trainer.train_dataset, num_rows)
    if not rows:
        raise ConfigurationError("`train_dataset` gives no rows to check on. Pass a map-style data set of a few rows.")
    with trainer.reading_features(), leaving_no_trace(trainer.model):
        return _Experiment(trainer, rows, _precision(trainer, rows)).report()


def _precision(trainer: Any, rows: list[Any]) -> torch.dtype:
    """The finest that student and teacher can compute in: some kernels, such as those of experts, know no float64."""
    if sum(weight.numel() for model in _models(trainer) for weight in model.parameters()) > MAX_WEIGHTS_IN_FLOAT64:
        return torch.float32
    try:
        experiment = _Experiment(trainer, rows, torch.float64)
        gradient = experiment.gradient([experiment.batch])
    except RuntimeError:
        return torch.float32
    return torch.float64 if all(part.isfinite().all() for part in gradient) else torch.float32


def _models(trainer: Any) -> list[nn.Module]:
    """The student, and every other model that teaches, each once."""
    return list(dict.fromkeys([trainer.model, *(each.model for each in online_teachers(trainer.teacher))]))


class _Experiment:
    """Copies of student and teacher, a batch, and the gradient of the objective on it."""

    def __init__(self, trainer: Any, rows: list[Any], dtype: torch.dtype) -> None:
        self.original, self.dtype = trainer, dtype
        not_ours = [each for each in single_teachers(trainer.teacher) if not isinstance(each, OnlineTeacher)]
        as_they_are = {id(each): each for each in (trainer.accelerator, *not_ours)}
        # Together, so that what they share stays shared.
        self.student, teacher = copy.deepcopy((trainer.model, trainer.teacher), as_they_are)
        self.student.to(self.dtype)
        for each in online_teachers(teacher):
            each.in_full_precision(self.dtype)
        self.trainer = copy.copy(trainer)
        self.trainer.model = self.trainer.model_wrapped = self.student
        self.trainer._log_window = trainer._log_window.clone()
        self.trainer.teacher = teacher
        self.teacher_models = _models(self.trainer)[1:]
        self.normalises = any(isinstance(module, _BatchNorm) for module in self.student.modules())
        for module in self.student.modules():
            if isinstance(module, _BatchNorm):
                module.train()
        self.parameters = [parameter for parameter in self.student.parameters() if parameter.requires_grad]
        self.pooled_labels = _pooled_labels(trainer) if trainer.distillation_objective.requires.labels else ""
        self.rows = rows
        self.batch = self._collated(rows)
        self.trainer._resolve_head(self.batch)
        self.num_rows = num_rows(self.batch)
        self.tolerance = TOLERANCES[self.dtype]

    def report(self) -> InvarianceReport:
        whole = self.gradient([self.batch])
        checks = [self.accumulation(whole), self.order(whole), self.padding(whole), *self.temperatures()]
        if self.trainer.teacher is not None:
            checks.append(self.repeats())
        if self.teacher_models:
            checks.append(self.unchanged())
        return InvarianceReport(tuple(checks), self.dtype)

    def gradient(self, batches: list[dict[str, Any]]) -> list[Tensor]:
        """What an optimizer would get from these micro-batches."""
        counts = self.trainer._get_num_items_in_batch(batches, self.original.args.device)
        total = [torch.zeros_like(parameter) for parameter in self.parameters]
        for batch in batches:
            loss = self.trainer.compute_loss(self.student, dict(batch), num_items_in_batch=counts)
            total = [sum_ + part for sum_, part in zip(total, gradient(loss, self.parameters), strict=True)]
        return total

    def accumulation(self, whole: list[Tensor]) -> Invariance:
        if self.num_rows < (4 if self.normalises else 2):
            return Invariance(
                "accumulation", None, None, self.tolerance, f"the batch has too few rows ({self.num_rows})"
            )
        half = (self.num_rows + 1) // 2
        differences, broken, reason = [], list[dict[str, Any]](), ""
        for size in [half] if self.normalises else [half, 1]:  # batch normalisation refuses single rows
            splits = [self._rows(each) for each in torch.arange(self.num_rows).split(size)]
            try:
                differences.append(_difference(self.gradient(splits), whole))
                broken = broken or (splits if differences[-1] > self.tolerance else [])
            except (RuntimeError, ValueError) as error:
                reason = f"a model refuses micro-batches of {size}: {error}"
        if not differences:
            return Invariance("accumulation", None, None, self.tolerance, reason)
        if self.trainer.head.compares_rows:
            reason = ROWS_COMPARED
        elif not self.normalises and (who := self._who_answers_otherwise(broken)):
            reason = (
                f"the {who}'s own answers change with the rows beside: keep to one batch size, or change the model"
            )
        return self._compared("accumulation", max(differences), reason)

    def order(self, whole: list[Tensor]) -> Invariance:
        reversed_rows = self._rows(torch.arange(self.num_rows).flip(0))
        return self._compared("order of rows", _difference(self.gradient([reversed_rows]), whole))

    def padding(self, whole: list[Tensor]) -> Invariance:
        mask = self.batch.get("attention_mask")
        if not isinstance(mask, Tensor) or mask.ndim != 2 or "input_ids" not in self.batch:
            reason = "the batch has no `input_ids` with an `attention_mask` of two axes"
            return Invariance("padding", None, None, self.tolerance, reason)
        width = mask.shape[1]
        limits = [max_positions(model) for model in (self.student, *self.teacher_models)]
        extra = min([EXTRA_PADDING, *(limit - width for limit in limits if limit is not None)])
        if extra <= 0:
            return Invariance("padding", None, None, self.tolerance, "the batch is as wide as a model can read")
        padded = {name: self._padded(name, value, width, extra) for name, value in self.batch.items()}
        difference = _difference(self.gradient([padded]), whole)
        who = self._who_answers_otherwise([padded]) if difference > self.tolerance else None
        reason = f"the {who}'s own answers change with padding: batch rows of one length, or change the model"
        return self._compared("padding", difference, "" if who is None else reason)

    def _who_answers_otherwise(self, batches: list[dict[str, Any]]) -> str | None:
        """Which of the two answers otherwise at the same positions of the same rows, batched in another way."""
        if not batches:
            return None
        requires = self.trainer.distillation_objective.requires
        once, again = (
            [self.trainer._compare(self.student, batch, requires)[:3] for batch in each]
            for each in ([self.batch], batches)
        )
        for index, who in enumerate(("student", "teacher")):
            if once[0][index] is None or isinstance(once[0][index].logits, TopKLogits):
                continue
            scores, others = (
                torch.cat([answer[index].logits[answer[2].mask] for answer in answers]) for answers in (once, again)
            )
            others = others[..., : scores.shape[-1]]
            is_finite = scores.isfinite() & others.isfinite()
            if _difference([others[is_finite]], [scores[is_finite]]) > self.tolerance:
                return who
        return None

    def temperatures(self) -> list[Invariance]:
        """Far above the logits, T² · ∂divergence does not depend on T; without the factor it falls to a quarter."""
        objective = self.trainer.distillation_objective
        checks = []
        for name, weighted in objective.terms.items():
            term: Any = weighted.term
            if "temperature" not in getattr(term, "__dataclass_fields__", {}):
                continue
            student, teacher, where, _ = self.trainer._compare(self.student, self.batch, objective.requires)
            if teacher is not None and getattr(teacher.logits, "drawn_at", None) is not None:
                reason = "classes that were drawn are compared at one temperature alone"
                checks.append(Invariance(f"temperature of {name}", None, None, TEMPERATURE_TOLERANCE, reason))
                continue
            high = max(1.0, 10 * max(map(_largest, (student.logits, teacher.logits if teacher else student.logits))))
            norms = []
            for temperature in (high, 2 * high):
                hot = replace(term, temperature=temperature)
                norms.append(norm(gradient(hot(student, teacher, where, 0.0).total, self.parameters)))
            name = f"temperature of {name}"
            if norms[0] == 0 or self._is_same(student.logits, teacher):
                reason = "student and teacher say the same, so its gradient is 0"
                checks.append(Invariance(name, None, None, TEMPERATURE_TOLERANCE, reason))
                continue
            ratio = norms[1] / norms[0]
            held = abs(ratio - 1) <= TEMPERATURE_TOLERANCE
            reason = f"gradient at T={2 * high:.3g} over that at T={high:.3g}: {ratio:.3g}"
            checks.append(Invariance(name, held, abs(ratio - 1), TEMPERATURE_TOLERANCE, reason))
        return checks

    def _is_same(self, scores: Tensor, teacher: Signals | None) -> bool:
        if teacher is None or isinstance(teacher.logits, TopKLogits) or teacher.logits.shape != scores.shape:
            return False
        finite = scores.isfinite() & teacher.logits.isfinite()
        return _difference([scores[finite]], [teacher.logits[finite]]) <= self.tolerance

    def repeats(self) -> Invariance:
        first, second = (self.trainer.teacher.signals(self.batch).logits for _ in range(2))
        if isinstance(first, TopKLogits):
            first, second = first.values, second.values
        finite = first.isfinite()
        scores = [each[finite].double() for each in (first, second)]
        difference = _difference([scores[1]], [scores[0]])
        return Invariance(
            "teacher repeats itself",
            difference <= self.tolerance,
            difference,
            self.tolerance,
            "" if difference <= self.tolerance else "its answers are random: is dropout on?",
        )

    def unchanged(self) -> Invariance:
        before = [{name: tensor.clone() for name, tensor in m.state_dict().items()} for m in self.teacher_models]
        gradients = self.gradient([self.batch])
        with torch.no_grad():
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter -= 1e-2 * gradient
        changed = [
            name
            for model, weights in zip(self.teacher_models, before, strict=True)
            for name, tensor in model.state_dict().items()
            if not torch.equal(weights[name], tensor)
        ]
        student, *teachers = _models(self.original)
        shared = [name for teacher in teachers for name in _shared_memory(student, teacher)]
        reason = f"changed: {changed[:3]}" if changed else f"memory shared with the student: {shared[:3]}"
        broken = bool(changed or shared)
        difference = float(len(changed) + len(shared))
        return Invariance("teacher unchanged", not broken, difference, 0.0, reason if broken else "")

    def _compared(self, name: str, difference: float, reason: str = "") -> Invariance:
        held = difference <= self.tolerance
        if not held and not reason:
            reason = BATCH_NORM if self.normalises else self.pooled_labels
        if math.isnan(difference):
            reason = "the gradient is not finite"
        return Invariance(name, held, difference, self.tolerance, reason)

    def _cast(self, value: Tensor) -> Tensor:
        return value.to(self.dtype) if value.is_floating_point() else value

    def _collated(self, rows: list[Any]) -> dict[str, Any]:
        batch: dict[str, Any] = recursively_apply(self._cast, collated(self.original, rows), test_type=torch.is_tensor)
        return batch

    def _rows(self, indices: Tensor) -> dict[str, Any]:
        if is_packed(self.batch) and self.num_rows == len(self.rows):
            return self._collated([self.rows[index] for index in indices.tolist()])

        def picked(value: Any) -> Any:
            if isinstance(value, Tensor) and value.ndim and len(value) == self.num_rows:
                return value[indices.to(value.device)]
            is_per_row = isinstance(value, list) and len(value) == self.num_rows
            return [value[index] for index in indices.tolist()] if is_per_row else value

        return {name: picked(value) for name, value in self.batch.items()}

    def _padded(self, name: str, value: Any, width: int, extra: int) -> Any:
        is_per_token = isinstance(value, Tensor) and value.ndim >= 2 and value.shape[1] == width
        if not is_per_token or value.is_floating_point():
            return value.clone() if isinstance(value, Tensor) else value
        processor_id = getattr(self.original.processing_class, "pad_token_id", None)
        config_id = getattr(getattr(self.student, "config", None), "pad_token_id", None)
        padding_id = next((each for each in (processor_id, config_id) if each is not None), 0)
        fill = {"input_ids": padding_id, "labels": IGNORED_LABEL, "shift_labels": IGNORED_LABEL}.get(name, 0)
        return nn.functional.pad(value, (0, 0) * (value.ndim - 2) + (0, extra), value=fill)


def _pooled_labels(trainer: Any) -> str:
    """Why the student's own loss depends on how a batch is split, if it does."""
    if isinstance(trainer.head, ObjectDetectionHead):
        return POOLED_LABELS
    config = getattr(unwrap_peft_model(trainer.model), "config", None)
    configs = () if config is None else (config, config.get_text_config())
    return ROUTED if any(getattr(each, "output_router_logits", False) for each in configs) else ""


def _largest(scores: Tensor | TopKLogits) -> float:
    """The magnitude of the largest score that is finite."""
    values = scores.values if isinstance(scores, TopKLogits) else scores.detach()
    return values.masked_fill(~values.isfinite(), 0.0).abs().max().item()


def _shared_memory(student: nn.Module, teacher: nn.Module) -> list[str]:
    trained = {p.untyped_storage().data_ptr() for p in student.parameters() if p.requires_grad and p.numel()}
    named = teacher.state_dict().items()
    return [name for name, tensor in named if tensor.numel() and tensor.untyped_storage().data_ptr() in trained]


def _difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    size = norm(theirs)
    distance = norm([mine - yours for mine, yours in zip(ours, theirs, strict=True)])
    return distance / size if size > 0 else distance

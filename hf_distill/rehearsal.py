"""One rehearsed step: how much each term pulls, whether the teacher knows anything, whether it all fits."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.trainer_utils import unwrap_peft_model
from transformers.utils import logging

from hf_distill.chunked_training import chunked_heads, sampled_positions
from hf_distill.errors import ConfigurationError
from hf_distill.functional.top_k import softened_top_k
from hf_distill.head_positions import hooked_models
from hf_distill.heads import ObjectDetectionHead
from hf_distill.heads.base import at_least_float32, real_tokens
from hf_distill.memory import Memory, memory_estimate
from hf_distill.objective import Objective
from hf_distill.position_tables import has_position_table, max_positions
from hf_distill.refused_batches import naming_the_model
from hf_distill.schedules import as_schedule
from hf_distill.step_cost import StepCost, step_cost
from hf_distill.teacher_scores import TeacherScore, teacher_score
from hf_distill.teachers import online_teachers
from hf_distill.terms import HardLabelTerm, SoftTargetTerm
from hf_distill.trial_batches import (
    collated,
    dot,
    gradient,
    gradient_obstacle,
    has_shards,
    leaving_no_trace,
    norm,
    sampled_rows,
)
from hf_distill.types import (
    IGNORED_LABEL,
    TEACHER_PREFIX,
    Batch,
    Positions,
    Requirements,
    Signals,
    TopKLogits,
    Unit,
)


logger = logging.get_logger(__name__)

NUM_TEACHER_ROWS = 64
LARGEST_RATIO = 100.0
"""Between the weighted gradients of two terms; beyond it, one of them has no say."""

NUM_MOMENTS = 100
"""Of training at which it is looked whether two terms act together."""

LARGEST_DEVIATION = 0.02
"""Of the student's own loss from the cross-entropy, in shares of it: what bfloat16 and the like may make."""

LEAST_SHARE = 0.5
"""Of a teacher's probability, what its likeliest classes must have at the temperature that they are softened at."""

INPUT_SIZES = ("image_size", "num_mel_bins")
"""What configurations call the size of an image and of a spectrogram."""


@dataclass(frozen=True)
class TermSize:
    """How large one term is on one batch."""

    unit: str
    """What it is counted in."""
    count: int
    """Its units in the batch."""
    value: float
    """Its unweighted mean over them."""
    weight: float
    """The largest that it has in training."""
    gradient: float
    """Norm of its weighted gradient, over all weights of the student that are trained."""
    ratio: float | None
    """`gradient` over that of the labels, or over the largest one where the objective has no labels."""
    cosine: float | None
    """Between its gradient and that of the labels."""


@dataclass(frozen=True)
class PreflightReport:
    """What one rehearsed step showed; `str(report)` is a short table."""

    terms: Mapping[str, TermSize]
    teacher: TeacherScore | None
    """None without a teacher, without labels, with a head that we do not know, or where student and teacher have
    different vocabularies."""
    longest_row: int | None
    """The largest number of real tokens of a row in the samples."""
    memory: Memory | None
    step: StepCost | None
    """None on several processes, and with an optimizer that steps within the backward pass."""
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{'term':<16} {'value':>10} {'weight':>8} {'gradient':>10} {'ratio':>9} {'cosine':>7}  counted"]
        for name, size in self.terms.items():
            ratio, cosine = _number(size.ratio), _number(size.cosine, ".2f")
            lines.append(
                f"{name:<16} {size.value:>10.4g} {size.weight:>8.3g} {size.gradient:>10.3g} {ratio:>9} {cosine:>7}  "
                f"{size.count} {size.unit}s"
            )
        if self.teacher is not None:
            lines.append(f"teacher: {self.teacher}")
        if self.memory is not None:
            sizes = ", ".join(f"{name} {size / 2**20:.1f}" for name, size in vars(self.memory).items())
            lines.append(f"memory without activations, MiB: {sizes}")
        if self.step is not None:
            lines.append(str(self.step))
        return "\n".join(lines) if self.terms else "no rehearsal"


def preflight_report(trainer: Any) -> PreflightReport:
    """A rehearsed step of a [`DistillationTrainer`], which leaves weights, gradients, random state and data as they
    were.

    One micro-batch goes through teacher and student, and each term's gradient is taken. The teacher answers up to 64
    rows of the evaluation data (of the training data, if there is none). Dropout is off. It is printed on the main
    process; what may be unwise is logged as a warning.

    Where weights are sharded (FSDP, DeepSpeed, tensor, context or sequence parallelism), a detector is trained by
    several processes, the rows of a stream cannot be read twice, or a student has reversible layers (Reformer),
    nothing is measured, and the only warning says so.

    Raises:
        MissingInputError, ConfigurationError: if the batch lacks what the objective reads, or a row is longer than
            the table of positions of student or teacher.
    """
    report = rehearsed(trainer, takes_a_step=True)
    for warning in report.warnings:
        logger.warning(warning)
    if report.terms and trainer.is_world_process_zero():
        print(report, flush=True)
    return report


def rehearsed(trainer: Any, takes_a_step: bool = False) -> PreflightReport:
    """What [`preflight_report`] prints, in silence.

    Args:
        takes_a_step: whether it is also measured what a step takes.
    """
    reason = obstacle(trainer) or gradient_obstacle(trainer.model)
    with leaving_no_trace(trainer.model):  # a data set may draw what it makes of a row
        rows = [] if reason else sampled_rows(trainer.train_dataset, trainer._train_batch_size)
    if not rows:
        reason = reason or "the training data is missing, or is a stream that cannot be copied"
        return PreflightReport({}, None, None, None, None, (f"The rehearsal is skipped: {reason}.",))
    with trainer.reading_features(), leaving_no_trace(trainer.model), trainer.compute_loss_context_manager():
        return _report_on(trainer, rows, takes_a_step)


def _report_on(trainer: Any, rows: list[Any], takes_a_step: bool) -> PreflightReport:
    batch = collated(trainer, rows)
    trainer._resolve_head(batch)
    trainer._check_batch(batch)
    evaluation = sampled_rows(trainer.eval_dataset, NUM_TEACHER_ROWS)
    evaluation = evaluation or sampled_rows(trainer.train_dataset, NUM_TEACHER_ROWS)
    size = trainer._train_batch_size
    evaluation_batches = [
        collated(trainer, evaluation[start : start + size], for_evaluation=True)
        for start in range(0, len(evaluation), size)
    ]
    batches = (batch, *evaluation_batches)
    longest = max(_longest_row(each, "input_ids") for each in batches)
    for_teacher = max(_longest_row(each, f"{TEACHER_PREFIX}input_ids") for each in batches) or longest
    models = _models(trainer)
    warnings = check_lengths({who: longest if who == "student" else for_teacher for who in models}, models)
    is_compared = trainer.head.is_language_model or None not in trainer._tokenizers
    names = INPUT_SIZES if is_compared else (*INPUT_SIZES, "vocab_size")
    warnings += _warnings_of_inputs(batch, models, names)
    signals = _compared(trainer, batch, trainer.distillation_objective.requires)
    student, _, where = signals
    if trainer.compute_loss_func is None and trainer.label_smoother is None:
        warnings += check_label_count(student, where)
    terms, logits_bytes = _term_sizes(trainer, *signals)
    warnings += _warnings_of_sizes(terms, trainer.distillation_objective)
    warnings += _warnings_of_likeliest(trainer, *signals[1:])
    del signals, student  # and their graph, before more is computed
    score = teacher_score(trainer.head, _teacher_answers(trainer, evaluation_batches))
    if score is not None and not score.is_above_chance:
        warnings.append(
            f"The teacher is not above chance on {score.num_rows} sampled rows: {score}. A student would learn noise. "
            "Look whether its labels are in the order of the data, and whether it was trained on this task."
        )
    memory = _memory(trainer, logits_bytes)
    is_chunked = None
    if trainer.head.is_language_model:
        is_chunked = chunked_heads(trainer, batch, trainer.distillation_objective.requires) is not None
    step = step_cost(trainer, batch, memory, is_chunked) if takes_a_step else None
    if step is not None and not step.fits:
        warnings.append(_warning_of_memory(trainer, step, memory))
    return PreflightReport(terms, score, longest or None, memory, step, tuple(warnings))


def _compared(trainer: Any, batch: Batch, requires: Requirements) -> tuple[Signals, Signals | None, Positions]:
    """What both models say; where training never holds the logits of all positions, at some of them."""
    rows = sampled_positions(trainer, batch, requires)
    seeing_rows = nullcontext() if rows is None else rows.at_heads_of(*hooked_models(trainer))
    models = _models(trainer)
    with naming_the_model(models, batch, _warnings_of_inputs(batch, models, INPUT_SIZES)), seeing_rows:
        student, teacher, where, _ = trainer._compare(trainer.model, batch, requires, rows=rows)
    if rows is None:
        return student, teacher, where
    return student, teacher, replace(where, counts={**where.counts, Unit.POSITION: where.mask.sum()})


def check_lengths(longest: Mapping[str, int], models: Mapping[str, nn.Module]) -> list[str]:
    """No row is longer than the positions that a model knows.

    Args:
        longest: who → real tokens of the longest row that it reads.
        models: who → model.

    Returns:
        A warning for each model without a table of positions whose configuration names a smaller maximum.

    Raises:
        ConfigurationError: if a table of positions is too short, naming every model with one.
    """
    faults, warnings = [], []
    for who, model in models.items():
        maximum = max_positions(model)
        if maximum is None or longest[who] <= maximum:
            continue
        says = f"a row has {longest[who]} tokens, and the {who} {type(model).__name__} has "
        if has_position_table(model):
            faults.append(f"{says}{maximum} positions")
        else:
            warnings.append(f"A{says[1:]}max_position_embeddings={maximum}: its answers beyond may be worse.")
    if faults:
        raise ConfigurationError(
            f"{'; '.join(faults)}. Truncate the rows to the smaller maximum (`max_length=` of the tokenizer), or "
            "choose a model that reads longer rows."
        )
    return warnings


def check_label_count(student: Signals, where: Positions) -> list[str]:
    """The student's own loss is the mean cross-entropy over the labels that are counted, where labels name classes.

    Returns:
        A warning with both values if it is not, so that its mean times their number is not its sum.
    """
    if student.label_loss is None or where.targets is None or not student.is_distribution:
        return []
    counted = where.mask & (where.targets != IGNORED_LABEL)
    number = int(where.counts[Unit.LABEL])
    if number == 0 or int(counted.sum()) != number:
        return []
    scores = at_least_float32(student.logits[counted])
    expected = torch.nn.functional.cross_entropy(scores, where.targets[counted]).item()
    own = student.label_loss.item() / number
    if abs(own - expected) <= LARGEST_DEVIATION * max(1.0, abs(expected)):
        return []
    return [
        f"The student's own loss on a batch is {own:.4g}, and the mean cross-entropy over the {number} labels that "
        f"are counted is {expected:.4g}. If its loss weighs classes or adds something, it is counted by these labels "
        "all the same; if it averages over other labels, pass a `head=` that counts those."
    ]


def _warnings_of_inputs(batch: Batch, models: Mapping[str, nn.Module], names: Sequence[str]) -> list[str]:
    """Where both are given the same inputs, and their configurations expect other ones, by fields of these names."""
    if any(name.startswith(TEACHER_PREFIX) for name in batch):
        return []
    expected = {who: getattr(unwrap_peft_model(model), "config", None) for who, model in models.items()}
    student = expected.pop("student")
    differing = [
        (who, name, *sizes)
        for who, config in expected.items()
        for name in names
        if None not in (sizes := [getattr(each, name, None) for each in (student, config)]) and sizes[0] != sizes[1]
    ]
    return [
        f"The student's configuration has {name}={own} and the {who}'s {name}={other}, and both are given "
        "the same inputs. If the teacher was trained on others, pass its processor as `teacher_processing_class=`."
        for who, name, own, other in differing
    ]


def obstacle(trainer: Any) -> str | None:
    """Why nothing can be measured on one process alone."""
    if has_shards(trainer):
        return "weights and gradients are sharded (FSDP or DeepSpeed)"
    if trainer.get_tp_size() * trainer.get_cp_size() * trainer.get_sp_size() > 1:
        return "the model or its sequences are split over processes"
    if trainer.accelerator.num_processes > 1 and isinstance(trainer.head, ObjectDetectionHead):
        return "a detector's own loss waits for the other processes"
    return None


def _models(trainer: Any) -> dict[str, nn.Module]:
    """The student and every other model that teaches, each once."""
    teachers = list(dict.fromkeys(each.model for each in online_teachers(trainer.teacher)))
    teachers = [model for model in teachers if model is not trainer.model]
    names = ["teacher"] if len(teachers) == 1 else [f"teacher {number}" for number in range(1, len(teachers) + 1)]
    return {"student": trainer.model, **dict(zip(names, teachers, strict=True))}


def _term_sizes(
    trainer: Any, student: Signals, teacher: Signals | None, where: Positions
) -> tuple[dict[str, TermSize], int]:
    """Every term on one batch, and the bytes of the class scores."""
    objective = trainer.distillation_objective
    losses = objective(student, teacher, where, 0.0)
    parameters = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    label_term = next((name for name, item in objective.terms.items() if isinstance(item.term, HardLabelTerm)), None)
    order = sorted(losses, key=lambda name: name != label_term)
    means = {name: losses[name].total / losses[name].count.clamp(min=1) for name in order}
    norms: dict[str, float] = {}
    cosines: dict[str, float] = {}
    of_labels: list[Tensor] = []
    for name in order:
        own = gradient(means[name], parameters)
        norms[name] = norm(own)
        if name == label_term:
            of_labels = own
        elif of_labels and norms[name] * norms[order[0]] > 0:
            cosines[name] = dot(own, of_labels) / (norms[name] * norms[order[0]])
    weights = {name: objective.terms[name].largest_weight for name in losses}
    pulls = {name: weights[name] * norms[name] for name in losses}
    reference = pulls[label_term] if label_term is not None else max(pulls.values())
    sizes = {
        name: TermSize(
            unit=objective.terms[name].term.unit.value,
            count=int(loss.count),
            value=means[name].item(),
            weight=weights[name],
            gradient=pulls[name],
            ratio=pulls[name] / reference if reference > 0 else None,
            cosine=cosines.get(name),
        )
        for name, loss in losses.items()
    }
    scores = [student.logits] + ([teacher.logits] if teacher is not None else [])
    return sizes, sum(tensor.nbytes for tensor in scores)


def _warnings_of_sizes(terms: Mapping[str, TermSize], objective: Objective) -> list[str]:
    warnings = []
    reference = next((name for name, size in terms.items() if size.ratio == 1.0), None)
    moments = [objective.weights(moment / NUM_MOMENTS) for moment in range(NUM_MOMENTS + 1)]
    for name, size in terms.items():
        if size.count == 0:
            warnings.append(f"The term {name!r} counts nothing in a batch, so its size could not be measured.")
        elif size.value == size.gradient == 0:
            warnings.append(
                f"The term {name!r} is 0 on a batch, so it teaches nothing yet: student and teacher agree there, as "
                "where layers were copied, or it compares rows and has too few."
            )
        elif size.ratio is not None and not 1 / LARGEST_RATIO <= size.ratio <= LARGEST_RATIO:
            if reference and not any(weights[name] > 0 < weights[reference] for weights in moments):
                continue  # they take turns, so neither has a say beside the other
            warnings.append(
                f"The weighted gradient of term {name!r} is {size.gradient:.3g}, and that of {reference!r} is "
                f"{terms[reference].gradient if reference else 0:.3g}, so one of them has next to no say (ratio "
                f"{size.ratio:.3g}). Change the weight of {name!r}, now {size.weight:.3g}, or drop the smaller term."
            )
    return warnings


def _warnings_of_likeliest(trainer: Any, teacher: Signals | None, where: Positions) -> list[str]:
    """Softened, a teacher's likeliest classes may be a small part of what it says."""
    logits: Any = None if teacher is None else teacher.logits
    if not isinstance(logits, TopKLogits) or logits.drawn_at is not None or not where.mask.any():
        return []
    terms = {name: weighted.term for name, weighted in trainer.distillation_objective.terms.items()}
    warnings = []
    for name, term in terms.items():
        if not isinstance(term, SoftTargetTerm):
            continue
        temperature = max(map(as_schedule(term.temperature), (0.0, 1.0)))
        share = 1 - softened_top_k(logits[where.mask], temperature)[1].exp().mean().item()
        if share < LEAST_SHARE:
            warnings.append(
                f"At temperature {temperature:g}, that of the term {name!r}, the teacher's {logits.values.shape[-1]} "
                f"likeliest classes have {share:.2f} of its probability on a batch. How the others lie among "
                "themselves is not taught, and here it outweighs what is. Lower the temperature, cache more classes, "
                f"or have them drawn: `cache_teacher(…, drawn_at={temperature:g})`."
            )
    return warnings


def _warning_of_memory(trainer: Any, step: StepCost, memory: Memory) -> str:
    """A step does not fit: what takes how much, and what to do."""
    needed, free = step.to_come / 2**20, (step.free or 0) / 2**20
    rest = step.to_come - memory.gradients - memory.optimizer
    return (
        f"A step needs {needed:,.0f} MiB more than is held now, and {trainer.args.device} has {free:,.0f} MiB left: "
        f"{memory.gradients / 2**20:,.0f} for gradients, {memory.optimizer / 2**20:,.0f} for the optimizer and "
        f"{rest / 2**20:,.0f} for a micro-batch of {trainer._train_batch_size} rows. Fewer rows "
        "(`per_device_train_batch_size`) with more `gradient_accumulation_steps` give the same gradient; "
        "`activation_checkpointing=True` keeps less of each; a smaller `optim` keeps fewer states; and a teacher that "
        f"is cached takes nothing, where it takes {memory.teacher / 2**20:,.0f} now."
    )


def _teacher_answers(trainer: Any, batches: list[dict[str, Any]]) -> Iterator[tuple[Batch, Any, Any]]:
    """Each batch with what the teacher says about it, aligned with the student's classes, and where it counts."""
    if trainer.teacher is None or not trainer._alignment.same_classes:
        return
    for batch in batches:
        if trainer.head.has_labels(batch):
            with torch.no_grad():
                _, teacher, where = _compared(trainer, batch, Requirements(teacher=True))
            if teacher is not None and getattr(teacher.logits, "drawn_at", None) is not None:
                return  # of a token that was not drawn it is not known how likely it is
            yield batch, teacher, where
            del teacher  # before the next batch is answered


def _longest_row(batch: Batch, name: str) -> int:
    """The real tokens of the longest row of `input_ids`, the student's or the teacher's; 0 where it has none."""
    ids, mask = batch.get(name), batch.get(name.replace("input_ids", "attention_mask"))
    if not isinstance(ids, Tensor) or ids.ndim != 2:
        return 0
    return int(real_tokens({"input_ids": ids, "attention_mask": mask}).sum(1).max())


def _memory(trainer: Any, logits_bytes: int) -> Memory:
    student, *teachers = _models(trainer).values()
    return replace(memory_estimate(student, teachers, trainer.args), logits=logits_bytes)


def _number(value: float | None, form: str = ".3g") -> str:
    return "-" if value is None else format(value, form)

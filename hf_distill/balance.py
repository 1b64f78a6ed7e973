"""Weights by which the terms of an objective pull alike when training starts."""

import math
from typing import Any

from torch import Tensor

from hf_distill.errors import ConfigurationError
from hf_distill.feature_reading.learned_parts import NAME as LEARNED_PARTS
from hf_distill.rehearsal import obstacle
from hf_distill.terms import HardLabelTerm
from hf_distill.trial_batches import collated, gradient, gradient_obstacle, leaving_no_trace, norm, sampled_rows


NUM_BATCHES = 4
"""Micro-batches whose mean gradient is measured."""


def balancing_scales(trainer: Any) -> dict[str, float]:
    """For each term of a [`DistillationTrainer`]'s objective, what its weight is multiplied by.

        scale = ‖∂ L_reference‖ / ‖∂ L_term‖

    over the weights of the student that are trained, without learned parts. The reference are the labels, or the term
    with the largest gradient where there are none. Dropout is off, and nothing of the trainer changes.

    Raises:
        ConfigurationError: if gradients cannot be measured, or that of a term is 0 or not finite.
    """
    reason = obstacle(trainer) or gradient_obstacle(trainer.model)
    with leaving_no_trace(trainer.model):  # a data set may draw what it makes of a row
        rows = [] if reason else sampled_rows(trainer.train_dataset, NUM_BATCHES * trainer._train_batch_size)
    if not rows:
        reason = reason or "the training data is missing, or is a stream that cannot be copied"
        raise ConfigurationError(
            f"weights='balanced' needs a gradient of each term before training, and {reason}. Give the terms numbers "
            "as weights, such as those that another run logs as `weight/<term>`."
        )
    with trainer.reading_features(), leaving_no_trace(trainer.model), trainer.compute_loss_context_manager():
        norms = {name: _norm_of(name, trainer, rows) for name in trainer.distillation_objective.terms}
    faults = [f"{name!r}: {value:.3g}" for name, value in norms.items() if not 0 < value < math.inf]
    if faults:
        raise ConfigurationError(
            f"weights='balanced' divides by the size of each term's gradient, and these are {', '.join(faults)} on "
            f"{len(rows)} rows. Give the terms numbers as weights, or leave out a term that has nothing to say."
        )
    terms = trainer.distillation_objective.terms
    labels = next((name for name, weighted in terms.items() if isinstance(weighted.term, HardLabelTerm)), None)
    reference = norms[labels] if labels is not None else max(norms.values())
    return {name: reference / value for name, value in norms.items()}


def _norm_of(name: str, trainer: Any, rows: list[Any]) -> float:
    """Of the gradient of one term's mean over all rows; one term at a time, so that one gradient is held at a time."""
    parameters = [
        parameter
        for key, parameter in trainer.model.named_parameters()
        if parameter.requires_grad and LEARNED_PARTS not in key.split(".")
    ]
    size, objective = trainer._train_batch_size, trainer.distillation_objective
    total: list[Tensor] | None = None
    count = 0.0
    for start in range(0, len(rows), size):
        batch = collated(trainer, rows[start : start + size])
        trainer._resolve_head(batch)
        student, teacher, where, _ = trainer._compare(trainer.model, batch, objective.requires)
        loss = objective.terms[name].term(student, teacher, where, progress=0.0)
        part = gradient(loss.total, parameters)
        total = part if total is None else [sum_ + each for sum_, each in zip(total, part, strict=True)]
        count += float(loss.count)
    return norm(total or []) / max(count, 1.0)

"""Several teachers that are asked together."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from hf_distill.errors import ConfigurationError
from hf_distill.heads.base import at_least_float32
from hf_distill.teachers.composite import CompositeTeacher
from hf_distill.types import Batch, Signals


class EnsembleTeacher(CompositeTeacher):
    """The weighted mean of what several teachers say. A list of teachers is one too.

        "probabilities":  logits = log Σ_i w_i · softmax(z_i)
        "logits":         logits = Σ_i w_i · z_i

    A term that softens these logits by T compares with

        "probabilities":  p_c ∝ (Σ_i w_i · softmax(z_i)_c)^(1 / T), the arithmetic mean, which is then softened;
        "logits":         p_c ∝ Π_i softmax(z_i / T)_c^(w_i), the geometric mean of what is softened before.

    So probabilities are averaged at T = 1, whatever the temperature of the objective. Of many labels, each class has a
    mean of its own. Outputs that are no distribution (regression) are averaged as they are, in either case.

    Everything is computed in float32, or in float64 if a member is. An ensemble of one says what its member says, to
    the bit.

    Args:
        teachers: models, Hub ids, local paths, or any [`Teacher`], each aligned with the student's classes by name.
        weights: a positive number for each, divided by their sum; equal if left out.
        average: "probabilities" or "logits".

    Raises:
        ConfigurationError: if there is no teacher, the weights are not as many positive finite numbers as there are
            teachers, or `average` is neither.

    References:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, https://arxiv.org/abs/1503.02531,
        section 5.3: an arithmetic or geometric mean of the individual distributions.
    """

    def __init__(
        self,
        teachers: Sequence[Any],
        weights: Sequence[float] | None = None,
        average: Literal["probabilities", "logits"] = "probabilities",
    ) -> None:
        super().__init__(teachers)
        weights = [1.0] * len(self.members) if weights is None else list(weights)
        faults = []
        if not self.members:
            faults.append("`teachers` is empty, so nobody would answer. Pass one teacher or more.")
        if len(weights) != len(self.members) or not all(0 < weight < math.inf for weight in weights):
            faults.append(
                f"`weights` must be a positive number for each of the {len(self.members)} teachers, got {weights}. "
                "Leave out a teacher that is to have no weight."
            )
        if average not in ("probabilities", "logits"):
            faults.append(f"`average` must be 'probabilities' or 'logits', got {average!r}.")
        if faults:
            raise ConfigurationError(" ".join(faults))
        self.weights = tuple(weight / sum(weights) for weight in weights)
        self.average = average

    def signals(self, batch: Batch) -> Signals:
        """The mean of what the members say, one after the other.

        Raises:
            ConfigurationError: if the scores of two members differ in shape.
        """
        first, *others = self.members
        said: Signals = first.signals(batch)
        if not others:
            return said
        is_mixture = said.is_distribution and self.average == "probabilities"
        mean = _weighted(said.logits, self.weights[0], is_mixture)
        for index, (member, weight) in enumerate(zip(others, self.weights[1:], strict=True), start=1):
            logits = member.signals(batch).logits
            if logits.shape != said.logits.shape:
                raise ConfigurationError(
                    f"the scores of `teachers[0]` have shape {tuple(said.logits.shape)} and those of "
                    f"`teachers[{index}]` {tuple(logits.shape)}, so they have no mean. Let every teacher answer for "
                    "the student's positions and classes."
                )
            part = _weighted(logits, weight, is_mixture)
            mean = torch.logaddexp(mean, part) if is_mixture else mean + part
        return replace(said, logits=mean, encoder_states=None)


def _weighted(logits: Tensor, weight: float, is_mixture: bool) -> Tensor:
    """One summand of the mean; of a mixture, its logarithm."""
    logits = at_least_float32(logits)
    return torch.log_softmax(logits, dim=-1) + math.log(weight) if is_mixture else logits * weight

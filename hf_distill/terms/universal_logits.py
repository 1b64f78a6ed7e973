"""Response knowledge where student and teacher have different vocabularies."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from hf_distill.functional.sorted_probabilities import sorted_probability_distance
from hf_distill.schedules import Schedule
from hf_distill.terms.soft_targets import SoftTargetTerm


@dataclass(frozen=True)
class UniversalLogitTerm(SoftTargetTerm):
    """The distance between the teacher's and the student's sorted probabilities, for vocabularies of any two models.

        Σ over positions of T · Σ_i |p_(i) − q_(i)|,  p = softmax(teacher / T),  q = softmax(student / T)

    It teaches how sure to be, and of how many tokens, but not of which. So it goes beside the labels.

    Unit: position. Reads: the logits of both. Learns: nothing.

    Args:
        temperature: T > 0, a number or a schedule over training.

    Raises:
        ConfigurationError: if the temperature is, or ever becomes, 0 or less.

    References:
        Boizard, El Haddad, Hudelot, Colombo: Towards Cross-Tokenizer Distillation: the Universal Logit Distillation
        Loss for LLMs, 2024, https://arxiv.org/abs/2402.12030.

    Example:

        >>> import torch
        >>> from hf_distill.types import Positions, Signals, Unit
        >>> where = Positions(mask=torch.tensor([True]), counts={Unit.POSITION: torch.tensor(1)})
        >>> student, teacher = Signals(torch.tensor([[0.0, 1.0]])), Signals(torch.tensor([[1.0, 0.0, -torch.inf]]))
        >>> UniversalLogitTerm()(student, teacher, where, progress=0.0).total.item()
        0.0
    """

    temperature: float | Schedule = 1.0
    divergence: Callable[..., Tensor] = field(default_factory=lambda: sorted_probability_distance, init=False)

    reads_every_class = True
    needs_same_classes = False

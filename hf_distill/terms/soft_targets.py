"""Response knowledge, second half: what the teacher thinks of every class."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from hf_distill.errors import ConfigurationError, MissingTeacherError
from hf_distill.functional.divergences import forward_kl, logit_mse
from hf_distill.functional.top_k import on_top_k
from hf_distill.schedules import Constant, Schedule, as_schedule
from hf_distill.terms.base import Term, check_function
from hf_distill.types import Positions, Requirements, Signals, TermLoss, Unit


@dataclass(frozen=True)
class SoftTargetTerm(Term):
    """The divergence between the teacher's and the student's softened class distributions.

        Σ over positions of T² · KL(softmax(teacher / T) ‖ softmax(student / T))

    Of a teacher that was cached with `top_k`, the divergence is that of [`functional.on_top_k`]: over its k classes
    and one for all others.

    Unit: position. Reads: the logits of both. Learns: nothing.

    Args:
        temperature: T > 0, a number or a schedule over training. Above 1 it shows the teacher's opinion of the
            classes that it does not choose.
        divergence: a function of `hf_distill.functional` with the signature of `forward_kl`; options of its own are
            bound with `functools.partial`, as in `partial(jensen_shannon, beta=0.1)`. A head whose scores are no
            logits (regression) is compared by squared error, whatever is given here.

    Raises:
        ConfigurationError: if the temperature is, or ever becomes, 0 or less, or `divergence` is no function.

    References:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, https://arxiv.org/abs/1503.02531,
        section 2.

    Example:

        >>> import torch
        >>> from hf_distill.types import Positions, Signals, Unit
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> where = Positions(mask=torch.tensor([True, False]), counts={Unit.POSITION: torch.tensor(1)})
        >>> term = SoftTargetTerm(temperature=2.0)
        >>> term(Signals(logits), Signals(logits.clone()), where, progress=0.0).total.item()
        0.0
    """

    temperature: float | Schedule = 2.0
    divergence: Callable[..., Tensor] = forward_kl

    reads_every_class = False
    unit = Unit.POSITION
    requires = Requirements(teacher=True)

    def __post_init__(self) -> None:
        schedule = as_schedule(self.temperature)
        if not schedule.minimum > 0:
            raise ConfigurationError(
                f"temperature must be above 0 throughout training, got {self.temperature!r}. 1 compares the plain "
                "probabilities, 2 to 4 are usual."
            )
        check_function("divergence", self.divergence)

    def __call__(self, student: Signals, teacher: Signals | None, where: Positions, progress: float) -> TermLoss:
        if teacher is None:
            raise MissingTeacherError("The soft-target term compares with a teacher's logits, and got teacher=None.")
        divergence = on_top_k(self.divergence) if student.is_distribution else logit_mse
        temperature = as_schedule(self.temperature)(progress)
        values = at_counted(divergence, where.mask, student.logits, teacher.logits, temperature=temperature)
        return TermLoss(values.sum(), where.counts[self.unit])

    def log_values(self, progress: float) -> dict[str, float]:
        """The temperature, where it moves."""
        schedule = as_schedule(self.temperature)
        return {} if isinstance(schedule, Constant) else {"temperature": schedule(progress)}


def at_counted(divergence: Callable[..., Tensor], mask: Tensor, *tensors: Tensor, temperature: float) -> Tensor:
    """The divergence at the positions that count, or with exact zeros elsewhere."""
    if mask.device.type != "cpu":  # picking the positions would wait for the device to count them
        rows = tensors[0].shape[: tensors[0].ndim - 1]  # a position may have several rows of scores
        spread = mask.reshape(mask.shape + (1,) * (len(rows) - mask.ndim)).expand(rows)
        return divergence(*tensors, temperature=temperature, mask=spread)
    if mask.all():
        return divergence(*tensors, temperature=temperature)
    return divergence(*(tensor[mask] for tensor in tensors), temperature=temperature)

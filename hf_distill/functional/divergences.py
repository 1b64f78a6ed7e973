"""How far a student's distribution over classes is from a teacher's, one value for each position.

All functions here share one contract.

- They are pure and reduce over the classes only: a caller sums or averages over positions.
- Inside they compute in float32, or in float64 if either input is float64, whatever the dtype of the logits.
- A position that `mask` excludes gives exactly 0 and an exactly zero gradient, even if its logits are NaN.
- A class that does not exist for both models has a logit of minus infinity in both, and contributes nothing to
  value or gradient. At a position that counts, at least one class must exist.
- Gradients reach whatever requires them. Nothing is detached here, so a teacher that learns too (mutual learning) gets
  its gradient.
- They never wait for the device, and they compile without a graph break.
"""

import math

import torch
from torch import Tensor

from hf_distill.errors import ConfigurationError
from hf_distill.functional.masking import check_mask, keep_counted
from hf_distill.functional.precision import computation_dtype


_MIN_BETA = 1e-16
"""Float64 does not tell 1 − beta from 1 below this, so that 0 ± 1e-16 and 1 ± 1e-16 are treated alike, as the end."""


def forward_kl(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """The Kullback-Leibler divergence from student to teacher, which makes a student cover all that the teacher does.

        T² · Σ_c p_c · (log p_c − log q_c),  p = softmax(teacher / T),  q = softmax(student / T)

    The factor T² keeps the size of the gradient as T grows: it tends to (student − teacher) / C for logits that
    each have mean 0, so a weight that is right at one temperature is right at another.

    Where a class is minus infinity for the student only and the teacher gives it mass, the value is plus infinity.

    Shapes: … positions, any number of axes; C classes.

    Args:
        student_logits: `(…, C)`, any float dtype.
        teacher_logits: `(…, C)`, any float dtype.
        temperature: T > 0, dividing both logits.
        mask: bool `(…)`, True where a position counts. None counts all.

    Returns:
        `(…)`, float32 or float64, nats times T² per position.

    Raises:
        ConfigurationError: if the shapes differ, the logits are no floats, the temperature is not a positive finite
            number, or the mask is not a bool for each position.

    References:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, https://arxiv.org/abs/1503.02531,
        section 2 and, for the limit, equation 4.

    Example:

        >>> import torch
        >>> teacher = torch.tensor([[0.0, 0.0], [1.0, -1.0]])
        >>> student = torch.tensor([[math.log(3), 0.0], [1.0, -1.0]])
        >>> forward_kl(student, teacher)  # ½ log(½ / ¾) + ½ log(½ / ¼) = ½ log(4 / 3)
        tensor([0.1438, 0.0000])
    """
    log_q, log_p = _log_distributions(student_logits, teacher_logits, temperature, mask)
    return temperature**2 * _kl(log_p, log_q)


def reverse_kl(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """The Kullback-Leibler divergence from teacher to student, which keeps a student from what the teacher rejects.

        T² · Σ_c q_c · (log q_c − log p_c),  p = softmax(teacher / T),  q = softmax(student / T)

    It is `forward_kl` with the roles exchanged. Where a class is minus infinity for the teacher only and the student
    gives it mass, the value is plus infinity and the gradient of that position is not defined.

    Shapes: … positions, any number of axes; C classes.

    Args:
        student_logits: `(…, C)`, any float dtype.
        teacher_logits: `(…, C)`, any float dtype.
        temperature: T > 0, dividing both logits.
        mask: bool `(…)`, True where a position counts. None counts all.

    Returns:
        `(…)`, float32 or float64, nats times T² per position.

    Raises:
        ConfigurationError: as `forward_kl`.

    References:
        Gu, Dong, Wei, Huang: MiniLLM: Knowledge Distillation of Large Language Models, 2024,
        https://arxiv.org/abs/2306.08543, section 2.1.

    Example:

        >>> import torch
        >>> teacher, student = torch.tensor([0.0, 0.0]), torch.tensor([math.log(3), 0.0])
        >>> reverse_kl(student, teacher)  # ¾ log(¾ / ½) + ¼ log(¼ / ½)
        tensor(0.1308)
    """
    log_q, log_p = _log_distributions(student_logits, teacher_logits, temperature, mask)
    return temperature**2 * _kl(log_q, log_p)


def jensen_shannon(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    beta: float = 0.5,
) -> Tensor:
    """The generalised Jensen-Shannon divergence, scaled so that it leads from `forward_kl` to `reverse_kl`.

        T² · (β · KL(p ‖ m) + (1 − β) · KL(q ‖ m)) / (β · (1 − β)),  m = β · p + (1 − β) · q

    with p the teacher's and q the student's softened distribution. Unscaled it vanishes at both ends. Divided by
    β(1 − β) it is continuous on [0, 1], is `forward_kl` at 0 and `reverse_kl` at 1, and for every β has the same
    second-order term around p = q, hence the same size of gradient near agreement. At β = ½ it is therefore
    **4 times** the usual Jensen-Shannon divergence: divide a weight from elsewhere by 4.

    Between the ends it is bounded (at β = ½ by 4 · log 2 · T²), even if a class is minus infinity for one model only.

    Shapes: … positions, any number of axes; C classes.

    Args:
        student_logits: `(…, C)`, any float dtype.
        teacher_logits: `(…, C)`, any float dtype.
        temperature: T > 0, dividing both logits.
        mask: bool `(…)`, True where a position counts. None counts all.
        beta: the teacher's share of the mixture m, 0 to 1.

    Returns:
        `(…)`, float32 or float64, nats times T² per position.

    Raises:
        ConfigurationError: as `forward_kl`, or if `beta` is outside [0, 1].

    References:
        Agarwal et al.: On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes, 2024,
        https://arxiv.org/abs/2306.13649, section 2 (there unscaled).

    Example:

        >>> import torch
        >>> teacher, student = torch.tensor([0.0, 0.0]), torch.tensor([math.log(3), 0.0])
        >>> [round(jensen_shannon(student, teacher, beta=beta).item(), 4) for beta in (0.0, 0.5, 1.0)]
        [0.1438, 0.1353, 0.1308]
    """
    if not 0 <= beta <= 1:
        raise ConfigurationError(
            f"beta must lie in [0, 1], got {beta!r}. 0 is the forward KL, 0.5 weighs student and teacher alike, 1 is "
            "the reverse KL."
        )
    log_q, log_p = _log_distributions(student_logits, teacher_logits, temperature, mask)
    # Exchanging p and q and β and 1 − β changes nothing, and log(1 − β + …) below is exact only away from β = 1.
    ordered = (log_p, log_q, beta) if beta <= 0.5 else (log_q, log_p, 1 - beta)
    return temperature**2 * _scaled_jensen_shannon(*ordered)


def skewed_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    alpha: float = 0.1,
) -> Tensor:
    """The Kullback-Leibler divergence to the teacher from a student that is mixed with a little of the teacher.

        T² · KL(p ‖ α · p + (1 − α) · q)

    with p the teacher's and q the student's softened distribution. It is `forward_kl` at α = 0. Above, it is bounded
    by T² · log(1 / α), so a class that the student all but excludes does not outweigh all others. Near agreement it
    is (1 − α)² times `forward_kl`.

    Shapes: … positions, any number of axes; C classes.

    Args:
        student_logits: `(…, C)`, any float dtype.
        teacher_logits: `(…, C)`, any float dtype.
        temperature: T > 0, dividing both logits.
        mask: bool `(…)`, True where a position counts. None counts all.
        alpha: the teacher's share of the mixture, from 0 to below 1.

    Returns:
        `(…)`, float32 or float64, nats times T² per position.

    Raises:
        ConfigurationError: as `forward_kl`, or if `alpha` is outside [0, 1).

    References:
        Ko, Kim, Chen, Yun: DistiLLM: Towards Streamlined Distillation for Large Language Models, 2024,
        https://arxiv.org/abs/2402.03898, section 3 (there without T).

    Example:

        >>> import torch
        >>> teacher, student = torch.tensor([0.0, 0.0]), torch.tensor([math.log(3), 0.0])
        >>> skewed_kl(student, teacher, alpha=0.5)  # m = (⅝, ⅜): ½ log(½ / ⅝) + ½ log(½ / ⅜)
        tensor(0.0323)
    """
    log_q, log_p = _log_distributions(student_logits, teacher_logits, temperature, mask)
    return temperature**2 * _skewed_kl(log_p, log_q, alpha)


def skewed_reverse_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    alpha: float = 0.1,
) -> Tensor:
    """The Kullback-Leibler divergence to the student from a teacher that is mixed with a little of the student.

        T² · KL(q ‖ (1 − α) · p + α · q)

    with p the teacher's and q the student's softened distribution. It is `skewed_kl` with the roles exchanged, and
    `reverse_kl` at α = 0. Above, it is bounded by T² · log(1 / α), also where the teacher excludes a class.

    Shapes: … positions, any number of axes; C classes.

    Args:
        student_logits: `(…, C)`, any float dtype.
        teacher_logits: `(…, C)`, any float dtype.
        temperature: T > 0, dividing both logits.
        mask: bool `(…)`, True where a position counts. None counts all.
        alpha: the student's share of the mixture, from 0 to below 1.

    Returns:
        `(…)`, float32 or float64, nats times T² per position.

    Raises:
        ConfigurationError: as `skewed_kl`.

    References:
        Ko, Kim, Chen, Yun: DistiLLM: Towards Streamlined Distillation for Large Language Models, 2024,
        https://arxiv.org/abs/2402.03898, section 3 (there without T).

    Example:

        >>> import torch
        >>> teacher, student = torch.tensor([0.0, 0.0]), torch.tensor([math.log(3), 0.0])
        >>> skewed_reverse_kl(student, teacher, alpha=0.5)  # m = (⅝, ⅜): ¾ log(¾ / ⅝) + ¼ log(¼ / ⅜)
        tensor(0.0354)
    """
    log_q, log_p = _log_distributions(student_logits, teacher_logits, temperature, mask)
    return temperature**2 * _skewed_kl(log_q, log_p, alpha)


def total_variation(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """The total variation distance: the mass that has to move to make the student's distribution the teacher's.

        T · ½ · Σ_c |p_c − q_c|,  p = softmax(teacher / T),  q = softmax(student / T)

    The factor is T, not T² as in `forward_kl`: this distance is first-order in the difference of the logits, which
    softening divides by T once, so T keeps the size of its gradient and T² would let it grow with T. Its gradient does
    not shrink near agreement.

    Shapes: … positions, any number of axes; C classes.

    Args:
        student_logits: `(…, C)`, any float dtype.
        teacher_logits: `(…, C)`, any float dtype.
        temperature: T > 0, dividing both logits.
        mask: bool `(…)`, True where a position counts. None counts all.

    Returns:
        `(…)`, float32 or float64, T times a probability, in [0, T].

    Raises:
        ConfigurationError: as `forward_kl`.

    References:
        Wen, Li, Du, Mou: f-Divergence Minimization for Sequence-Level Knowledge Distillation, 2023,
        https://arxiv.org/abs/2307.15190.

    Example:

        >>> import torch
        >>> teacher, student = torch.tensor([0.0, 0.0]), torch.tensor([math.log(3), 0.0])
        >>> total_variation(student, teacher)  # ½ (|½ − ¾| + |½ − ¼|)
        tensor(0.2500)
    """
    q, p = distributions(student_logits, teacher_logits, temperature, mask)
    return 0.5 * temperature * (p - q).abs().sum(dim=-1)


def logit_mse(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """The mean squared difference of the logits, over the classes that exist.

        1 / C · Σ_c (student_c − teacher_c)²

    The temperature has **no effect**. It is taken so that all functions here are called alike: T² times the squared
    difference of logits that are divided by T is the squared difference of the logits. Unlike its siblings this one is
    not invariant to a constant added to all logits of a model, and it is the one for scores that are no distribution.

    Shapes: … positions, any number of axes; C classes. A class that is minus infinity in both counts neither in the
    sum nor in C; one that is so in one of them makes the value plus infinity.

    Args:
        student_logits: `(…, C)`, any float dtype.
        teacher_logits: `(…, C)`, any float dtype.
        temperature: T > 0, without effect.
        mask: bool `(…)`, True where a position counts. None counts all.

    Returns:
        `(…)`, float32 or float64, the squared unit of the logits.

    Raises:
        ConfigurationError: as `forward_kl`.

    References:
        Ba, Caruana: Do Deep Nets Really Need to be Deep?, 2014, https://arxiv.org/abs/1312.6184 (there half the sum).
        Kim, Oh, Kim, Cho, Yun: Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in Knowledge
        Distillation, 2021, https://arxiv.org/abs/2105.08919.

    Example:

        >>> import torch
        >>> logit_mse(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 5.0]))
        tensor(4.5000)
    """
    check_logits(student_logits, teacher_logits, temperature, mask)
    dtype = computation_dtype(student_logits, teacher_logits)
    difference = keep_counted(student_logits.to(dtype) - teacher_logits.to(dtype), mask, overwrite=True)
    absent = torch.isneginf(student_logits) & torch.isneginf(teacher_logits)
    num_classes = (~absent).sum(dim=-1).clamp(min=1)
    return difference.masked_fill_(absent, 0.0).square().sum(dim=-1) / num_classes


def distributions(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Probabilities of student and teacher, `(…, C)`, uniform where a position does not count."""
    check_logits(student_logits, teacher_logits, temperature, mask)
    dtype = computation_dtype(student_logits, teacher_logits)
    student = torch.softmax(softened_logits(student_logits, temperature, mask, dtype), dim=-1)
    teacher = torch.softmax(softened_logits(teacher_logits, temperature, mask, dtype), dim=-1)
    return student, teacher


def _kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    """KL(a ‖ b) over the last axis; classes without mass in a contribute 0, as their limit does."""
    a = log_a.exp()
    log_ratio = log_a - log_b
    log_ratio.detach().masked_fill_(a == 0, 0.0)  # its gradient there is a product with 0 as it is
    return (a * log_ratio).sum(dim=-1)


def _scaled_jensen_shannon(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """KL(p ‖ m) / (1 − β) + KL(q ‖ m) / β over the last axis, m = β · p + (1 − β) · q, for β ≤ ½."""
    if beta < _MIN_BETA:
        return _kl(log_p, log_q)
    log_m_over_p, log_m_over_q = _log_mixture_ratios(log_p, log_q, beta)
    q_part = log_q.exp() * log_m_over_q / beta
    p_part = log_p.exp() * log_m_over_p / (1 - beta)
    return -(q_part + p_part).sum(dim=-1)


def _skewed_kl(log_a: Tensor, log_b: Tensor, alpha: float) -> Tensor:
    """KL(a ‖ α · a + (1 − α) · b) over the last axis."""
    if not 0 <= alpha < 1:
        raise ConfigurationError(
            f"alpha must lie in [0, 1), got {alpha!r}. 0 skews nothing, 0.1 is usual, and at 1 student and teacher "
            "would not be compared."
        )
    if alpha < _MIN_BETA:
        return _kl(log_a, log_b)
    log_mixture_over_a, _ = _log_mixture_ratios(log_a, log_b, alpha)
    return -(log_a.exp() * log_mixture_over_a).sum(dim=-1)


def _log_mixture_ratios(log_p: Tensor, log_q: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """log(m / p) and log(m / q), m = β · p + (1 − β) · q.

    With u = log(p / q), log(m / q) = log1p(β · expm1(u)) and log(m / p) is that less u. Written so, small β lose no
    digits, and the rounding of the logarithms has no first-order effect near p = q. Beyond ±log(1 / (β · ε)) a change
    of u changes the value by less than its rounding ε, so u is cut there, before expm1 overflows.
    """
    max_log_ratio = -math.log(beta * torch.finfo(log_p.dtype).eps)
    absent = torch.isneginf(log_p) & torch.isneginf(log_q)
    log_ratio = (log_p - log_q).masked_fill(absent, 0.0).clamp(-max_log_ratio, max_log_ratio)
    log_m_over_q = torch.log1p(beta * torch.expm1(log_ratio))
    return log_m_over_q - log_ratio, log_m_over_q


def _log_distributions(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of student and teacher, `(…, C)`, uniform where a position does not count."""
    check_logits(student_logits, teacher_logits, temperature, mask)
    dtype = computation_dtype(student_logits, teacher_logits)
    student = torch.log_softmax(softened_logits(student_logits, temperature, mask, dtype), dim=-1)
    teacher = torch.log_softmax(softened_logits(teacher_logits, temperature, mask, dtype), dim=-1)
    return student, teacher


def softened_logits(logits: Tensor, temperature: float, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Logits divided by the temperature, 0 where a position does not count, in as few copies as possible."""
    softened = logits.to(dtype)
    if temperature != 1:
        softened = softened / temperature if softened is logits else softened.div_(temperature)
    return keep_counted(softened, mask, overwrite=softened is not logits)


def check_logits(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    mask: Tensor | None = None,
    *,
    name: str = "logits",
    same_classes: bool = True,
) -> None:
    """Refuses logits, or scores of another name, that cannot be compared.

    Args:
        same_classes: whether there must be equally many classes.

    Raises:
        ConfigurationError: as `forward_kl`.
    """
    faults = []
    ours, theirs = student_logits.shape, teacher_logits.shape
    if (ours != theirs if same_classes else ours[:-1] != theirs[:-1]) or 0 in (len(ours), len(theirs)):
        what = f"{name} of one shape" if same_classes else f"a row of {name} of each for the same positions"
        faults.append(
            f"student_{name} have shape {tuple(ours)} and teacher_{name} {tuple(theirs)}. Pass {what}, classes on the "
            "last axis."
        )
    if not (student_logits.is_floating_point() and teacher_logits.is_floating_point()):
        faults.append(
            f"student_{name} are {student_logits.dtype} and teacher_{name} {teacher_logits.dtype}. Pass {name} of a "
            "floating-point dtype."
        )
    if not 0 < temperature < math.inf:  # math.isfinite breaks the graph once Dynamo has made the temperature dynamic
        faults.append(
            f"temperature must be a finite number above 0, got {temperature!r}. 1 compares the plain probabilities."
        )
    if faults:
        raise ConfigurationError(" ".join(faults))
    check_mask(mask, student_logits.shape[:-1])

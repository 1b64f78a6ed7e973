"""How far two distributions are apart whose classes cannot be matched."""

import torch
from torch import Tensor

from hf_distill.functional.divergences import check_logits, softened_logits
from hf_distill.functional.masking import keep_counted
from hf_distill.functional.precision import computation_dtype


def sorted_probability_distance(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """The distance of the sorted probabilities, which compares models that do not have the same classes.

        T · Σ_i |p_(i) − q_(i)|,  p = softmax(teacher / T),  q = softmax(student / T)

    where p_(i) is the i-th largest probability, and 0 beyond the last class of the model that has fewer. It is the
    Wasserstein distance between the two distributions where it costs the same to move mass from any class to any
    other. Which class a probability belongs to is not compared: the value is 0 if one is a permutation of the other.
    So this is for classes that cannot be matched, and it wants the labels beside it.

    The factor is T for the reason given in `total_variation`, of which this is twice the value if the classes of both
    happen to be in one order. Sorting is what it costs: on a CPU 30 times as much as `forward_kl` at 50,000 classes,
    and an index of 8 bytes for each of the student's logits until the backward pass.

    Shapes: … positions, any number of axes; C_s, C_t classes.

    Args:
        student_logits: `(…, C_s)`, any float dtype.
        teacher_logits: `(…, C_t)`, any float dtype.
        temperature: T > 0, dividing both logits.
        mask: bool `(…)`, True where a position counts. None counts all.

    Returns:
        `(…)`, float32 or float64, T times a probability, in [0, 2 T].

    Raises:
        ConfigurationError: as `forward_kl`, but the numbers of classes may differ.

    References:
        Boizard, El Haddad, Hudelot, Colombo: Towards Cross-Tokenizer Distillation: the Universal Logit Distillation
        Loss for LLMs, 2024, https://arxiv.org/abs/2402.12030, the closed form of its Wasserstein distance (there
        without T).

    Example:

        >>> import torch
        >>> teacher, student = torch.tensor([0.0, 0.0, -torch.inf]), torch.tensor([1.0, 3.0]).log()
        >>> sorted_probability_distance(student, teacher)  # |½ − ¾| + |½ − ¼| + |0 − 0|
        tensor(0.5000)
    """
    check_logits(student_logits, teacher_logits, temperature, mask, same_classes=False)
    dtype = computation_dtype(student_logits, teacher_logits)
    # A softmax keeps the order, and of sorted logits it sums in one order, so that permutations differ by exactly 0.
    student, teacher = (logits.sort(dim=-1, descending=True).values for logits in (student_logits, teacher_logits))
    q = torch.softmax(softened_logits(student, temperature, mask, dtype), dim=-1)
    p = torch.softmax(softened_logits(teacher, temperature, mask, dtype), dim=-1)
    common = min(p.shape[-1], q.shape[-1])
    distance = (p[..., :common] - q[..., :common]).abs().sum(dim=-1)
    unmatched = p[..., common:].sum(dim=-1) + q[..., common:].sum(dim=-1)
    return keep_counted(temperature * (distance + unmatched), mask)

"""A few classes in place of all, drawn so that they are right on average."""

import torch
from torch import Tensor

from hf_distill.errors import ConfigurationError
from hf_distill.functional.divergences import check_logits
from hf_distill.functional.precision import computation_dtype
from hf_distill.functional.top_k import check_number
from hf_distill.types import TAIL_EXPONENTS, TopKLogits


def drawn_logits(logits: Tensor, k: int, points: Tensor, *, temperature: float = 1.0) -> TopKLogits:
    """k classes of each position whose weights are, on average, the probabilities of all.

        weight_c = max(p_c, w) with the chance min(1, p_c / w), else 0,   Σ_c min(1, p_c / w) = k,
        p = softmax(logits / T)

    So classes with p_c ≥ w are always among them with their own probability, and those drawn of the others have one
    weight w. Weights sum to 1. The gradient of `forward_kl`, which is linear in the teacher's probabilities, is then
    right on average, and what a student learns of the others does not end at the k-th. The value is too large by what
    a distribution over k classes is more certain than one over all.

    The others lie side by side on a line, each as long as it is likely, and evenly spaced points pick among them.

    Shapes: N positions; C classes.

    Args:
        logits: `(N, C)`, any float dtype, computed in float32 (float64 if it is).
        k: how many are kept, at least 1; all classes, where it is more than there are.
        points: `(N,)`, from 0 to below 1, drawn evenly: where the first point lies.
        temperature: T > 0, the only one at which they can be compared.

    Returns:
        What [`on_top_k`] takes, with `drawn_at`, and no weight left for others. Values are T · log weight.

    Raises:
        ConfigurationError: if there is not one point for each position, `k` is below 1, or the temperature is not a
            positive finite number.

    References:
        Anshumann et al.: Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs, 2025,
        https://arxiv.org/abs/2503.16870, which draws with replacement. Madow: On the Theory of Systematic Sampling,
        II, 1949, for the evenly spaced points.

    Example:

        >>> logits = torch.tensor([[0.50, 0.25, 0.15, 0.10]]).log()
        >>> drawn = drawn_logits(logits, k=2, points=torch.tensor([0.9]))
        >>> drawn.indices, drawn.values.exp()
        (tensor([[0, 3]]), tensor([[0.5000, 0.5000]]))
    """
    if points.shape != logits.shape[:1] or logits.ndim != 2:
        raise ConfigurationError(
            f"logits have shape {tuple(logits.shape)} and points {tuple(points.shape)}. Pass `(N, C)` logits, and one "
            "point for each of the N positions."
        )
    check_number(k)
    check_logits(logits, logits, temperature, None)
    log_p = torch.log_softmax(logits.to(computation_dtype(logits)) / temperature, dim=-1)
    num_classes = log_p.shape[-1]
    k = min(k, num_classes)
    likeliest, classes = log_p.topk(k, dim=-1)
    probabilities = log_p.exp().double()
    largest = likeliest.exp().double()
    rest = probabilities.sum(-1, keepdim=True) - largest.cumsum(-1) + largest
    ranks = torch.arange(k, device=logits.device)
    is_certain = (largest * (k - ranks) >= rest).long().cumprod(-1).bool()
    if k == num_classes:
        is_certain = torch.ones_like(is_certain)
    num_certain = is_certain.sum(-1, keepdim=True)
    line = probabilities.scatter(-1, classes, largest.masked_fill(is_certain, 0.0)).cumsum(-1)
    weight = line[:, -1:] / (k - num_certain).clamp(min=1)
    places = (points[:, None].double() + ranks - num_certain) * weight
    others = torch.searchsorted(line, places, right=True).clamp(max=num_classes - 1)
    values = torch.where(is_certain, likeliest, weight.log().to(log_p.dtype))
    nothing = values.new_full((len(values), len(TAIL_EXPONENTS)), -torch.inf)
    kept = classes.where(is_certain, others)
    return TopKLogits(temperature * values, kept, nothing, num_classes - k, num_classes, float(temperature))

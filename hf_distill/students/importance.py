"""How much a model would miss a part of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call
from transformers import PreTrainedModel

from hf_distill.errors import ConfigurationError, MissingInputError
from hf_distill.types import Batch


@dataclass(frozen=True)
class Slices:
    """What belongs to each unit of one kind, as equal slices of some tensors."""

    places: tuple[tuple[str, int], ...]
    """The names of the tensors, each with an axis that counts units. A tensor may stand here with two of its axes."""
    num_units: int
    """How many units there are: each has as many neighbouring entries of an axis as that makes."""

    def sums(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """`(num_units,)`: the sum over all that belongs to a unit, in the tensors that are given."""
        parts = [
            tensors[name].movedim(axis, 0).reshape(self.num_units, -1).sum(1)
            for name, axis in self.places
            if name in tensors
        ]
        return torch.stack(parts).sum(0)


def taylor_scores(model: PreTrainedModel, kinds: Sequence[Slices], batches: Iterable[Batch]) -> list[Tensor]:
    """To first order, how much a model's own loss would change without a unit, in absolute value over batches.

        I_u = 1/N · Σ_batches | Σ_{w of u} w · ∂L/∂w |

    Where `w` are the weights that read a unit, such as the columns of an output projection, this is |∂L/∂ξ_u| for a
    gate ξ_u = 1 that multiplies the unit, so no gate has to be put into the model.

    The model runs in eval mode. Its weights, gradients and modes stay as they were.

    Args:
        model: with a head that computes a loss.
        kinds: the units of which scores are wanted.
        batches: inputs with labels, on any device.

    Returns:
        For each kind `(num_units,)`, float32 or float64.

    Raises:
        MissingInputError: if the model computes no loss for a batch.
        ConfigurationError: if there is no batch.

    References:
        Michel, Levy, Neubig: Are Sixteen Heads Really Better than One?, 2019, https://arxiv.org/abs/1905.10650,
        section 4.1; Molchanov et al.: Importance Estimation for Neural Network Pruning, 2019,
        https://arxiv.org/abs/1906.10771, equation 8 (there squared, which ranks one batch alike).
    """
    weights = dict(model.named_parameters())
    names = sorted({name for kind in kinds for name, _ in kind.places} & weights.keys())
    scores = [torch.zeros(kind.num_units, device=model.device) for kind in kinds]
    num_batches, modes = 0, {module: module.training for module in model.modules()}
    model.eval()
    try:
        for batch in batches:
            num_batches += 1
            leaves = {name: weights[name].detach().requires_grad_() for name in names}
            with torch.enable_grad():
                loss = _loss(model, leaves, batch)
                gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
            products = {
                name: torch.zeros_like(leaf) if gradient is None else (leaf.detach() * gradient).to(_accumulated(leaf))
                for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True)
            }
            scores = [score + kind.sums(products).abs() for score, kind in zip(scores, kinds, strict=True)]
    finally:
        for module, mode in modes.items():
            module.training = mode
    if num_batches == 0:
        raise ConfigurationError(
            "importance_data= holds 0 batches, so nothing is known about importance. Pass a few batches with labels, "
            "or leave it out to go by the size of weights."
        )
    return [score / num_batches for score in scores]


def magnitudes(model: PreTrainedModel, factors: Sequence[Slices]) -> Tensor:
    """The product, over the factors, of the Euclidean norm of what a unit has there.

    A unit that nothing writes to, or that nothing reads, has 0.

    Args:
        model: the model.
        factors: the tensors that stand one behind the other, such as those that write a neuron and those that read it.

    Returns:
        `(num_units,)`, float32 or float64.

    References:
        Han et al.: Learning both Weights and Connections for Efficient Neural Networks, 2015,
        https://arxiv.org/abs/1506.02626, for the size of single weights.
    """
    names = {name for factor in factors for name, _ in factor.places}
    squares = {
        name: weight.detach().to(_accumulated(weight)).square()
        for name, weight in model.named_parameters()
        if name in names
    }
    return torch.stack([factor.sums(squares).sqrt() for factor in factors]).prod(0)


def _loss(model: PreTrainedModel, leaves: Mapping[str, Tensor], batch: Batch) -> Tensor:
    inputs = {name: value.to(model.device) if isinstance(value, Tensor) else value for name, value in batch.items()}
    loss: Tensor | None = getattr(functional_call(model, dict(leaves), (), inputs), "loss", None)
    if loss is None:
        raise MissingInputError(
            f"{type(model).__name__} computes no loss for a batch of importance_data= with {sorted(batch)}. Give it "
            "labels, and a teacher whose head has a loss."
        )
    return loss


def _accumulated(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)

"""What a term learns beside the student: a map from its width to its teacher's, and other numbers."""

from torch import Tensor, nn

from hf_distill.functional.precision import without_autocast


class Projection(nn.Linear):
    """A linear map that computes in its own precision, whatever that of the features and under autocast too.

    Example:

        >>> import torch
        >>> Projection(2, 3)(torch.ones(2, dtype=torch.bfloat16)).dtype
        torch.float32
    """

    def forward(self, features: Tensor) -> Tensor:
        with without_autocast(features):
            return super().forward(features.to(self.weight.dtype))


class LearnedValues(nn.Module):
    """Numbers that a term learns and applies itself, such as variances.

    They are given out by the student's forward, where DDP and FSDP look for what is learned, as a copy, since FSDP
    takes the gathered weights away again.

    Args:
        initial: what they are at first.

    Example:

        >>> import torch
        >>> LearnedValues(torch.zeros(2))(torch.ones(5))
        tensor([0., 0.], grad_fn=<CloneBackward0>)
    """

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(initial)

    def forward(self, features: Tensor) -> Tensor:
        return self.values.clone()

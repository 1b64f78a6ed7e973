"""The learned map from a student's width to its teacher's."""

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

"""A learned map computes in its own precision."""

import pytest
import torch

from hf_distill.terms.projection import LearnedValues, Projection


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_precision_is_that_of_its_weights(dtype):
    projection, features = Projection(3, 2), torch.randn(4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        projected = projection(features.to(dtype))
    expected = features.to(dtype).float() @ projection.weight.T + projection.bias
    assert projected.dtype == torch.float32
    assert torch.allclose(projected, expected, rtol=1e-6)


def test_values_are_given_as_a_copy_that_learns():
    values = LearnedValues(torch.tensor([1.0, 2.0]))
    given = values(torch.full((3,), torch.nan))
    assert given.data_ptr() != values.values.data_ptr()
    given.sum().backward()
    assert values.values.grad.tolist() == [1.0, 1.0]

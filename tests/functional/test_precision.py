"""Float32 at least, whatever the models compute in."""

import pytest
import torch

from hf_distill.functional.precision import computation_dtype, without_autocast


@pytest.mark.parametrize(
    "dtypes, expected",
    [
        ((torch.bfloat16, torch.float16), torch.float32),
        ((torch.float32, torch.bfloat16), torch.float32),
        ((torch.float16, torch.float64), torch.float64),
    ],
)
def test_at_least_float32(dtypes, expected):
    assert computation_dtype(*(torch.zeros(1, dtype=dtype) for dtype in dtypes)) == expected


def test_products_keep_their_dtype_under_autocast():
    matrix = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (matrix @ matrix).dtype == torch.bfloat16
        with without_autocast(matrix):
            assert (matrix @ matrix).dtype == torch.float32

"""The one vector of a row."""

import pytest
import torch

from hf_distill.functional.pooling import pooled_states, rows_with_tokens
from tests.terms.features import REAL


STATES = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("pooled, positions", [("first", (0, 0, 1)), ("last", (4, 2, 3))])
def test_the_first_and_the_last_real_token(pooled, positions):
    expected = [STATES[row, position] for row, position in enumerate(positions)]
    assert torch.equal(pooled_states(STATES, REAL, pooled), torch.stack(expected))


def test_the_mean_of_the_real_tokens():
    spoilt = STATES.masked_fill(~REAL[..., None], torch.nan)
    expected = [sum(STATES[row, token] for token in REAL[row].nonzero()[:, 0]) / REAL[row].sum() for row in range(3)]
    torch.testing.assert_close(pooled_states(spoilt, REAL, "mean"), torch.stack(expected))


@pytest.mark.parametrize("pooled", ["first", "last", "mean"])
def test_no_mask_is_one_of_everything(pooled):
    everything = torch.ones_like(REAL)
    assert torch.equal(pooled_states(STATES, None, pooled), pooled_states(STATES, everything, pooled))


def test_rows_that_have_tokens():
    real = REAL.clone()
    real[1] = False
    assert rows_with_tokens(real).tolist() == [True, False, True]
    assert rows_with_tokens(None) is None

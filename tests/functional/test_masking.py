"""Values and gradients at positions that do not count."""

import pytest
import torch

from hf_distill.errors import ConfigurationError
from hf_distill.functional.masking import check_mask, keep_counted


MASK = torch.tensor([[True, False, True], [False, False, True]])


@pytest.mark.parametrize("trailing", [(), (4,), (4, 2)])
@pytest.mark.parametrize("overwrite", [False, True])
def test_excluded_positions_become_zero_and_the_others_stay(trailing: tuple[int, ...], overwrite: bool) -> None:
    values = torch.randn(2, 3, *trailing)
    before = values.clone()

    kept = keep_counted(values, MASK, overwrite=overwrite)

    for row in range(2):
        for column in range(3):
            expected = before[row, column] if MASK[row, column] else torch.zeros(trailing)
            assert torch.equal(kept[row, column], expected)
    assert torch.equal(values, kept if overwrite else before)


def test_nothing_is_done_without_a_mask() -> None:
    values = torch.randn(2, 3)
    assert keep_counted(values, None) is values


def test_what_is_not_finite_reaches_neither_value_nor_gradient() -> None:
    logits = torch.randn(2, 3, 4)
    logits[~MASK] = torch.tensor([float("nan"), float("inf"), float("-inf"), 1.0])
    logits.requires_grad_()

    torch.log_softmax(keep_counted(logits, MASK), dim=-1).square().sum().backward()

    assert torch.equal(logits.grad[~MASK], torch.zeros(3, 4))
    assert logits.grad[MASK].isfinite().all()
    assert logits.grad[MASK].abs().sum() > 0


def test_a_mask_that_is_not_bool_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"mask must be bool.*torch\.int64"):
        check_mask(MASK.long(), torch.Size([2, 3]))


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"mask has shape \(2, 3\).*\(2, 4\)"):
        check_mask(MASK, torch.Size([2, 4]))


def test_a_fitting_mask_and_none_are_accepted() -> None:
    check_mask(MASK, torch.Size([2, 3]))
    check_mask(None, torch.Size([2, 3]))

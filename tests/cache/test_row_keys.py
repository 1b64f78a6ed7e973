"""Rows are found by their content."""

import pytest
import torch

from hf_distill.cache import RealSpan, row_keys


IDS = torch.tensor([[5, 6, 7]])


def padded(left: int, right: int, fill: int = 0):
    pad = torch.nn.functional.pad
    mask = pad(torch.ones(1, 3, dtype=torch.bool), (left, right))
    return pad(IDS, (left, right), value=fill), RealSpan.of(mask)


@pytest.mark.parametrize(("left", "right"), [(0, 0), (0, 4), (3, 0), (1, 2)])
def test_padding_of_any_side_and_value_changes_nothing(left, right):
    assert row_keys({"input_ids": padded(left, right, fill=9)}) == row_keys({"input_ids": (IDS, None)})


def test_each_row_of_a_batch_has_the_key_it_has_alone():
    ids = torch.tensor([[5, 6, 7], [8, 9, 0]])
    span = RealSpan.of(torch.tensor([[True, True, True], [True, True, False]]))
    assert row_keys({"input_ids": (ids, span)}) == [
        *row_keys({"input_ids": (IDS, None)}),
        *row_keys({"input_ids": (torch.tensor([[8, 9]]), None)}),
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"input_ids": (torch.tensor([[5, 6, 8]]), None)},
        {"input_ids": (torch.tensor([[5, 6, 7, 0]]), None)},
        {"input_ids": (IDS[..., None], None)},
        {"token_type_ids": (IDS, None)},
        {"input_ids": (IDS.float(), None)},
        {"input_ids": (IDS, None), "token_type_ids": (IDS, None)},
    ],
    ids=["a token", "a length", "a shape", "a name", "a kind", "a further entry"],
)
def test_other_content_has_another_key(other):
    assert row_keys(other) != row_keys({"input_ids": (IDS, None)})


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_what_numbers_are_kept_in_changes_nothing(dtype):
    assert row_keys({"x": (IDS.to(dtype), None)}) == row_keys({"x": (IDS, None)})
    pixels = torch.tensor([[0.5, 1.25]])
    assert row_keys({"x": (pixels.double(), None)}) == row_keys({"x": (pixels.bfloat16(), None)})


def test_padding_of_an_inner_axis_and_of_vectors():
    choices = torch.tensor([[[5, 6, 0, 0], [7, 0, 0, 0]]])
    span = RealSpan.of(choices != 0)
    assert row_keys({"x": (choices, span)}) == row_keys({"x": (choices[..., :2], None)})
    vectors = torch.arange(8.0).view(1, 4, 2)
    span = RealSpan.of(torch.tensor([[True, True, False, False]]))
    assert row_keys({"x": (vectors, span)}) == row_keys({"x": (vectors[:, :2], None)})


def test_what_stands_before_the_first_real_place_may_count():
    mask = torch.tensor([[False, True, False]])
    assert row_keys({"m": (mask, RealSpan.of(mask, from_first=False))}) == row_keys({"m": (mask[:, :2], None)})


def test_a_row_of_padding_alone_is_empty():
    span = RealSpan.of(torch.zeros(1, 3, dtype=torch.bool))
    assert row_keys({"x": (IDS, span)}) == row_keys({"x": (IDS[:, :0], None)})

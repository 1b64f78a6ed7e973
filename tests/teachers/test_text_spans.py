"""Where the real tokens of each row begin and end."""

import pytest
import torch

from hf_distill.errors import ConfigurationError
from hf_distill.teachers.text_spans import text_spans


IDS = torch.ones(4, 5, dtype=torch.int64)


def test_spans_of_rows_padded_on_either_side_and_of_none():
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 1, 0, 0]])
    assert text_spans({"input_ids": IDS, "attention_mask": mask}) == {0: (0, 3), 1: (2, 5), 3: (1, 3)}


def test_all_tokens_are_real_without_a_mask():
    assert text_spans({"input_ids": IDS}) == dict.fromkeys(range(4), (0, 5))


def test_positions_may_begin_after_padding_and_stand_still_in_it():
    mask = torch.tensor([[0, 0, 1, 1, 1]] * 4)
    positions = torch.tensor([[1, 1, 0, 1, 2]] * 4)
    text_spans({"input_ids": IDS, "attention_mask": mask, "position_ids": positions})
    positions[2, 4] = 0
    with pytest.raises(ConfigurationError, match="`position_ids` that start over within a row"):
        text_spans({"input_ids": IDS, "attention_mask": mask, "position_ids": positions})

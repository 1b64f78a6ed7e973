"""The nouns: how requirements join, and what top-k logits answer."""

import pytest
import torch

from hf_distill.functional import top_k_logits
from hf_distill.types import Requirements, TopKLogits


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("teacher", [False, True])
def test_requirements_join(labels, teacher):
    assert Requirements(labels=labels) | Requirements(teacher=teacher) == Requirements(labels, teacher)
    assert Requirements(teacher=teacher) | Requirements(labels=labels) == Requirements(labels, teacher)


def test_nothing_is_the_neutral_element():
    everything = Requirements(labels=True, teacher=True)
    assert everything | Requirements() == everything
    assert Requirements() | Requirements() == Requirements(labels=False, teacher=False)


def test_top_k_logits_answer_as_a_tensor_does():
    dense = torch.tensor([[0.1, 0.6, 0.2, 0.1], [0.25, 0.25, 0.1, 0.4]]).log()
    kept = top_k_logits(dense, 2)
    assert kept.shape == dense.shape and kept.ndim == 2 and kept.device == dense.device
    assert kept.argmax(-1).tolist() == dense.argmax(-1).tolist()
    assert kept.nbytes == 2 * (2 * 4 + 2 * 8 + 3 * 4)
    assert kept[torch.tensor([False, True])].argmax().tolist() == [3]
    even = torch.tensor([[0.1, 0.6, 0.2, 0.1]])
    torch.testing.assert_close(kept[:1].float().exp(), even)


def test_an_entry_that_is_no_class_is_not_spread():
    kept = TopKLogits(torch.tensor([0.9, 0.0]).log(), torch.tensor([2, 2]), torch.tensor([0.1, 0.1, 0.1]).log(), 1, 3)
    assert kept.float().argmax() == 2
    torch.testing.assert_close(kept.float()[2].exp(), torch.tensor(0.9))

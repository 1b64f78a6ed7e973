"""The student's own loss."""

import pytest
import torch

from hf_distill.errors import MissingInputError
from hf_distill.terms import HardLabelTerm
from hf_distill.types import Positions, Signals, TermLoss, Unit


WHERE = Positions(torch.ones(2, dtype=torch.bool), {Unit.LABEL: torch.tensor(7), Unit.POSITION: torch.tensor(2)})


def test_hands_on_the_sum_and_counts_labels():
    own = torch.tensor(3.5, requires_grad=True)
    loss = HardLabelTerm()(Signals(torch.zeros(2, 3), label_loss=own), None, WHERE, 0.0)
    assert loss == TermLoss(own, WHERE.counts[Unit.LABEL])


def test_a_student_without_a_loss():
    with pytest.raises(MissingInputError, match=r"the student returned none\. .* drop the term \(`alpha=0`"):
        HardLabelTerm()(Signals(torch.zeros(2, 3)), None, WHERE, 0.0)

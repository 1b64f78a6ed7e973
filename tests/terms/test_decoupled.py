"""The parts of decoupled distillation as terms. What holds for all terms: test_base.py."""

import pytest
import torch

from hf_distill import Linear
from hf_distill.errors import ConfigurationError, MissingInputError, MissingTeacherError
from hf_distill.functional import non_target_class_kl, target_class_kl
from hf_distill.terms import DecoupledTerm
from hf_distill.types import Positions, Requirements, Signals, Unit


STUDENT, TEACHER = (Signals(torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed))) for seed in (0, 1))
TARGETS = torch.tensor([[3, -100, 0], [1, 2, -100]])
MASK = torch.tensor([[True, True, True], [False, True, False]])
COUNTS = {Unit.LABEL: torch.tensor(3), Unit.POSITION: torch.tensor(4)}


@pytest.mark.parametrize("part", [target_class_kl, non_target_class_kl])
def test_the_sum_over_labels_at_positions_that_count(part):
    loss = DecoupledTerm(3.0, part)(STUDENT, TEACHER, Positions(MASK, COUNTS, targets=TARGETS), 0.0)
    expected = sum(
        part(STUDENT.logits[place], TEACHER.logits[place], TARGETS[place], temperature=3.0)
        for place in [(0, 0), (0, 2), (1, 1)]
    )
    torch.testing.assert_close(loss.total, expected)
    assert loss.count == 3


def test_a_position_without_a_label_may_hold_nan():
    logits = STUDENT.logits.clone()
    logits[0, 1] = logits[1, 0] = torch.nan
    logits.requires_grad_()
    DecoupledTerm()(Signals(logits), TEACHER, Positions(MASK, COUNTS, targets=TARGETS), 0.0).total.backward()
    assert logits.grad.isfinite().all() and logits.grad[0, 0].abs().sum() > 0


def test_what_it_reads():
    assert DecoupledTerm().requires == Requirements(labels=True, teacher=True)
    assert DecoupledTerm().unit is Unit.LABEL


def test_a_temperature_that_moves():
    term, where = DecoupledTerm(Linear(4.0, 2.0)), Positions(MASK, COUNTS, targets=TARGETS)
    assert term(STUDENT, TEACHER, where, 0.5).total == DecoupledTerm(3.0)(STUDENT, TEACHER, where, 0.0).total
    assert term.log_values(0.5) == {"temperature": 3.0}
    with pytest.raises(ConfigurationError, match="temperature must be above 0 throughout training, got 0"):
        DecoupledTerm(0)


@pytest.mark.parametrize(
    "targets, given",
    [(None, "none"), (TARGETS[0], r"torch.int64 \(3,\)"), (TARGETS.float(), r"torch.float32 \(2, 3\)")],
)
def test_labels_that_name_no_class(targets, given):
    with pytest.raises(MissingInputError, match=rf"positions \(2, 3\), and the head's targets are {given}"):
        DecoupledTerm()(STUDENT, TEACHER, Positions(MASK, COUNTS, targets=targets), 0.0)


def test_without_a_teacher():
    with pytest.raises(MissingTeacherError, match=r"decoupled term .* got teacher=None"):
        DecoupledTerm()(STUDENT, None, Positions(MASK, COUNTS, targets=TARGETS), 0.0)

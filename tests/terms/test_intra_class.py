"""Correlations over the rows of a micro-batch as a term. What holds for all terms: test_base.py."""

import pytest
import torch

from hf_distill.errors import MissingTeacherError, UnsupportedModelError
from hf_distill.functional import intra_class_pearson_distance
from hf_distill.terms import IntraClassTerm
from hf_distill.types import Positions, Signals, Unit


STUDENT, TEACHER = (torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
MASK = torch.tensor([[True, True, True], [False, True, True]])


def where(mask=MASK):
    return Positions(mask, {Unit.POSITION: mask.sum()})


def test_the_mean_over_classes_for_each_position():
    loss = IntraClassTerm(2.0)(Signals(STUDENT), Signals(TEACHER), where(), 0.0)
    values = intra_class_pearson_distance(STUDENT[MASK], TEACHER[MASK], temperature=2.0)
    assert loss.total.item() == pytest.approx(5 * values.mean().item(), rel=1e-6)
    assert loss.count == 5


def test_micro_batches_weigh_what_they_hold():
    """So that the mean over an accumulated batch is that over its positions."""
    parts = [
        IntraClassTerm()(Signals(s), Signals(t), where(m), 0.0) for s, t, m in zip(STUDENT, TEACHER, MASK, strict=True)
    ]
    assert [part.count.item() for part in parts] == [3, 2]
    means = [intra_class_pearson_distance(s[m], t[m]).mean() for s, t, m in zip(STUDENT, TEACHER, MASK, strict=True)]
    assert sum(part.total for part in parts).item() == pytest.approx((3 * means[0] + 2 * means[1]).item(), rel=1e-6)


@pytest.mark.parametrize("extra", [1, 7])
def test_classes_that_no_position_has_change_nothing(extra):
    """Rows of padding in a vocabulary, or answers that would lie in the padding."""
    padded = [torch.nn.functional.pad(logits, (0, extra), value=-torch.inf) for logits in (STUDENT, TEACHER)]
    wide = IntraClassTerm()(*map(Signals, padded), where(), 0.0).total
    assert wide.item() == pytest.approx(
        IntraClassTerm()(Signals(STUDENT), Signals(TEACHER), where(), 0.0).total.item()
    )


def test_scores_that_are_no_logits():
    with pytest.raises(UnsupportedModelError, match=r"the scores of this head are no logits .* Use `SoftTargetTerm`"):
        IntraClassTerm()(Signals(STUDENT, is_distribution=False), Signals(TEACHER), where(), 0.0)


def test_without_a_teacher():
    with pytest.raises(MissingTeacherError, match=r"intra-class term .* got teacher=None"):
        IntraClassTerm()(Signals(STUDENT), None, where(), 0.0)

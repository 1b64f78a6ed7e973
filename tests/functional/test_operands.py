"""Features are checked before they are compared."""

import pytest
import torch

from hf_distill.errors import ConfigurationError
from hf_distill.functional.operands import counted_features


def test_float32_with_zeros_where_nothing_counts():
    student = torch.tensor([[1.0, 2.0], [torch.nan, 3.0]], dtype=torch.bfloat16)
    teacher = torch.tensor([[1.5, 2.0], [torch.inf, 3.0]])
    ours, theirs = counted_features(student, teacher, torch.tensor([True, False]))
    assert torch.equal(ours, torch.tensor([[1.0, 2.0], [0.0, 0.0]])) and ours.dtype == torch.float32
    assert torch.equal(theirs, torch.tensor([[1.5, 2.0], [0.0, 0.0]]))


def test_widths_that_may_differ():
    ours, theirs = counted_features(torch.zeros(2, 3), torch.zeros(2, 4), None, widths_may_differ=True)
    assert (ours.shape, theirs.shape) == ((2, 3), (2, 4))


@pytest.mark.parametrize("widths_may_differ", [False, True])
@pytest.mark.parametrize("student, teacher", [((2, 3), (4, 3)), ((), ()), ((2, 3), (2, 2, 3))])
def test_other_shapes(student, teacher, widths_may_differ):
    with pytest.raises(ConfigurationError) as caught:
        counted_features(torch.zeros(student), torch.zeros(teacher), None, widths_may_differ=widths_may_differ)
    assert f"student_features have shape {student} and teacher_features {teacher}" in str(caught.value)


def test_another_width():
    with pytest.raises(
        ConfigurationError, match=r"shape \(2, 3\) and teacher_features \(2, 4\)\. Project the student"
    ):
        counted_features(torch.zeros(2, 3), torch.zeros(2, 4), None)


def test_another_number_of_axes():
    with pytest.raises(ConfigurationError, match=r"have 3 axes, \(2, 3, 4\), and 2 are needed\. Flatten or pool"):
        counted_features(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), None, num_axes=2)


def test_integers():
    with pytest.raises(
        ConfigurationError, match=r"student_features are torch\.float32 and teacher_features torch\.int"
    ):
        counted_features(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64), None)


def test_masks():
    with pytest.raises(ConfigurationError, match=r"mask must be bool.*torch\.float32"):
        counted_features(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2))
    with pytest.raises(ConfigurationError, match=r"mask has shape \(3,\), .* \(2,\)"):
        counted_features(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(3, dtype=torch.bool))


def test_all_faults_at_once():
    with pytest.raises(ConfigurationError, match=r"teacher_features \(2, 4\).* torch\.int64"):
        counted_features(torch.zeros(2, 3), torch.zeros(2, 4, dtype=torch.int64), None)

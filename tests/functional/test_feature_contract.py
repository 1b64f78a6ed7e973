"""What holds for every function of feature and relation knowledge."""

from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.functional.feature_cases import CASES, DISTANCES, inputs, value_and_gradients


every_function = pytest.mark.parametrize("name", CASES)
every_distance = pytest.mark.parametrize("name", DISTANCES)


@every_function
def test_mask_equals_slicing_also_if_nan_stands_there(name):
    """In values, and in the gradients of student and teacher."""
    function, layout = CASES[name]
    student, teacher = inputs(layout, poisoned=True)

    values, *gradients = value_and_gradients(function, student, teacher, mask=layout.mask)

    parts = [layout.parts(tensor, layout.mask) for tensor in (student, teacher)]
    sliced = [value_and_gradients(function, ours, theirs) for ours, theirs in zip(*parts, strict=True)]
    for whole, expected in zip((values, *gradients), zip(*sliced, strict=True), strict=True):
        for part, expected_part in zip(layout.parts(whole, layout.mask), expected, strict=True):
            torch.testing.assert_close(part, expected_part, rtol=1e-10, atol=1e-12)
            assert expected_part.abs().sum() > 1e-3


@every_function
def test_what_does_not_count_is_exactly_zero(name):
    function, layout = CASES[name]
    values, *gradients = value_and_gradients(function, *inputs(layout, poisoned=True), mask=layout.mask)
    counted = [part for tensor in (values, *gradients) for part in layout.parts(tensor, layout.mask)]
    assert all(tensor.isfinite().all() for tensor in (values, *gradients))
    everywhere = sum(tensor.count_nonzero() for tensor in (values, *gradients))
    assert everywhere == sum(part.count_nonzero() for part in counted) > 0


@every_function
def test_nothing_counted_is_exactly_zero(name):
    function, layout = CASES[name]
    nothing = torch.zeros_like(layout.mask)
    student, teacher = (torch.full_like(tensor, torch.nan) for tensor in inputs(layout))
    for tensor in value_and_gradients(function, student, teacher, mask=nothing):
        assert torch.equal(tensor, torch.zeros_like(tensor))


@every_function
def test_a_mask_of_everything_is_no_mask(name):
    function, layout = CASES[name]
    student, teacher = inputs(layout)
    masked = value_and_gradients(function, student, teacher, mask=torch.ones_like(layout.mask))
    for tensor, expected in zip(masked, value_and_gradients(function, student, teacher), strict=True):
        torch.testing.assert_close(tensor, expected)


@every_distance
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_zero_at_equality(name, dtype):
    function, layout = CASES[name]
    student, _ = inputs(layout, dtype)
    values, gradient, _ = value_and_gradients(function, student, student)
    assert torch.equal(values, torch.zeros_like(values))
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)


@every_distance
def test_positive_elsewhere(name):
    function, layout = CASES[name]
    assert (function(*inputs(layout)) > 1e-4).all()


@every_function
def test_the_order_of_a_batch_changes_nothing(name):
    function, layout = CASES[name]
    student, teacher = inputs(layout)
    order = torch.randperm(len(student), generator=torch.Generator().manual_seed(1))
    assert order.tolist() != list(range(len(student)))
    values = function(student, teacher, mask=layout.mask)
    shuffled = function(student[order], teacher[order], mask=layout.mask[order])
    torch.testing.assert_close(shuffled, values if values.ndim == 0 else values[order])


@every_function
@pytest.mark.parametrize("masked", [False, True])
def test_gradcheck_of_student_and_teacher(name, masked):
    function, layout = CASES[name]
    student, teacher = (tensor.requires_grad_() for tensor in inputs(layout))
    assert torch.autograd.gradcheck(partial(function, mask=layout.mask if masked else None), (student, teacher))


@every_function
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name, dtype):
    function, layout = CASES[name]
    student, teacher = inputs(layout, dtype)
    values, gradient, _ = value_and_gradients(function, student, teacher, mask=layout.mask)
    expected, expected_gradient, _ = value_and_gradients(
        function, student.double(), teacher.double(), mask=layout.mask
    )
    assert values.dtype == torch.float32 and gradient.dtype == student.dtype
    torch.testing.assert_close(values, expected.float(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient.to(student.dtype), rtol=2e-2, atol=1e-5)


@every_function
def test_autocast_changes_nothing(name):
    function, layout = CASES[name]
    student, teacher = inputs(layout, torch.float32)

    def under_autocast(*features, **kwargs):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (student.flatten(1) @ student.flatten(1).T).dtype == torch.bfloat16
            return function(*features, **kwargs)

    expected = value_and_gradients(function, student, teacher, mask=layout.mask)
    for tensor, other in zip(
        value_and_gradients(under_autocast, student, teacher, mask=layout.mask), expected, strict=True
    ):
        assert torch.equal(tensor, other)


@every_function
def test_the_inputs_are_left_as_they_were(name):
    function, layout = CASES[name]
    student, teacher = inputs(layout, torch.float32)
    before = student.clone(), teacher.clone()
    function(student, teacher, mask=layout.mask)
    function(student, teacher)
    assert torch.equal(student, before[0]) and torch.equal(teacher, before[1])


class NoHostReads(TorchDispatchMode):
    """Fails whatever would wait for a device."""

    WAITING = ("aten._local_scalar_dense.default", "aten.nonzero.default", "aten.masked_select.default")

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        by_mask = str(operation) == "aten.index.Tensor" and any(index.dtype == torch.bool for index in args[1])
        assert not by_mask and str(operation) not in self.WAITING, f"{operation} waits for the device"
        return operation(*args, **(kwargs or {}))


@every_function
def test_nothing_reads_a_value_on_the_host(name):
    function, layout = CASES[name]
    with NoHostReads():
        value_and_gradients(function, *inputs(layout), mask=layout.mask)


@pytest.mark.parametrize("read", [torch.Tensor.any, torch.nonzero, lambda mask: mask[mask]])
def test_the_guard_against_host_reads_sees_them(read):
    mask = torch.tensor([True, False])
    with NoHostReads(), pytest.raises(AssertionError, match="waits for the device"):
        bool(read(mask).any())


@every_function
@pytest.mark.parametrize("masked", [False, True])
def test_a_teacher_from_inference_mode(name, masked):
    function, layout = CASES[name]
    student, teacher = inputs(layout, torch.float32)
    mask = layout.mask if masked else None
    with torch.inference_mode():
        inferred = teacher.clone()
    ours = student.clone().requires_grad_()
    function(ours, inferred, mask=mask).sum().backward()
    _, expected, _ = value_and_gradients(function, student, teacher, mask=mask)
    torch.testing.assert_close(ours.grad, expected)


@every_function
def test_compiles_without_a_break(name):
    torch.compiler.reset()
    function, layout = CASES[name]
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    student, teacher = inputs(layout)
    values = value_and_gradients(compiled, student, teacher, mask=layout.mask)
    for tensor, expected in zip(
        values, value_and_gradients(function, student, teacher, mask=layout.mask), strict=True
    ):
        torch.testing.assert_close(tensor, expected)

"""Each divergence against its formula in plain loops, and the contract that all of them share."""

import math
from collections.abc import Callable
from functools import partial

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hf_distill.errors import ConfigurationError
from hf_distill.functional import (
    forward_kl,
    jensen_shannon,
    logit_mse,
    reverse_kl,
    skewed_kl,
    skewed_reverse_kl,
    sorted_probability_distance,
    total_variation,
)
from tests.functional.divergence_cases import (
    CASES,
    SMOOTH,
    loop_distribution,
    loop_kl,
    random_logits,
    value_and_gradient,
)
from tests.functional.waves import wave
from tests.slow_cases import slow_but


INFINITY = float("inf")
NAN = float("nan")

every_divergence = pytest.mark.parametrize("divergence", [case[0] for case in CASES.values()], ids=list(CASES))
every_smooth = pytest.mark.parametrize("divergence", [CASES[name][0] for name in SMOOTH], ids=SMOOTH)
every_temperature = pytest.mark.parametrize("temperature", [1.0, 2.0])


class TestFormula:
    @pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
    @pytest.mark.parametrize("name", CASES)
    def test_the_formula_in_loops(self, name: str, temperature: float) -> None:
        divergence, loop = CASES[name]
        student, teacher = random_logits(2, 3, 5)

        values = divergence(student, teacher, temperature=temperature)

        assert values.shape == (2, 3) and values.mean() > 0.01
        for row in range(2):
            for column in range(3):
                expected = loop(student[row, column].tolist(), teacher[row, column].tolist(), temperature)
                assert values[row, column].item() == pytest.approx(expected, rel=1e-12)
                assert expected > 0

    def test_two_classes_by_hand(self) -> None:
        """q = (¾, ¼) and p = (½, ½), so m = (⅝, ⅜)."""
        student, teacher = torch.tensor([math.log(3), 0.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
        pinned = {
            forward_kl: 0.5 * math.log(4 / 3),
            reverse_kl: 0.75 * math.log(3) - math.log(2),
            total_variation: 0.25,
            logit_mse: math.log(3) ** 2 / 2,
            jensen_shannon: 2 * (0.5 * math.log(16 / 15) + 0.75 * math.log(6 / 5) + 0.25 * math.log(2 / 3)),
        }
        for divergence, expected in pinned.items():
            assert divergence(student, teacher).item() == pytest.approx(expected, rel=1e-12)
        assert forward_kl(student, teacher).item() == pytest.approx(0.14384103622589045)
        assert reverse_kl(student, teacher).item() == pytest.approx(0.13081203594113694)

    def test_jensen_shannon_at_one_half_is_four_times_the_usual_one(self) -> None:
        student, teacher = random_logits(6)
        q, p = loop_distribution(student.tolist(), 1.0), loop_distribution(teacher.tolist(), 1.0)
        m = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
        usual = (loop_kl(p, m) + loop_kl(q, m)) / 2
        assert jensen_shannon(student, teacher).item() == pytest.approx(4 * usual, rel=1e-12)

    @every_divergence
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_zero_at_equality(self, divergence: Callable[..., Tensor], dtype: torch.dtype) -> None:
        logits, _ = random_logits(4, 6, dtype=dtype)
        values, gradient = value_and_gradient(divergence, logits, logits.clone(), temperature=2.0)
        assert torch.equal(values, torch.zeros_like(values))
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)

    def test_reverse_kl_exchanges_student_and_teacher(self) -> None:
        student, teacher = random_logits(4, 6)
        assert torch.equal(
            reverse_kl(student, teacher, temperature=3.0), forward_kl(teacher, student, temperature=3.0)
        )

    def test_jensen_shannon_exchanges_student_and_teacher_with_beta(self) -> None:
        student, teacher = random_logits(4, 6)
        torch.testing.assert_close(
            jensen_shannon(student, teacher, beta=0.25), jensen_shannon(teacher, student, beta=0.75)
        )

    @pytest.mark.parametrize("name", [name for name in CASES if name != "logit_mse"])
    def test_a_constant_added_to_all_logits_changes_nothing(self, name: str) -> None:
        divergence, _ = CASES[name]
        student, teacher = random_logits(4, 6)
        torch.testing.assert_close(divergence(student + 7.0, teacher - 3.0), divergence(student, teacher))

    @every_divergence
    def test_the_order_of_the_classes_changes_nothing(self, divergence: Callable[..., Tensor]) -> None:
        student, teacher = random_logits(4, 6)
        order = torch.tensor([3, 0, 5, 1, 4, 2])
        torch.testing.assert_close(divergence(student[:, order], teacher[:, order]), divergence(student, teacher))

    @every_divergence
    @settings(deadline=None, max_examples=40)
    @given(
        pairs=st.lists(st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)), min_size=1, max_size=6),
        temperature=st.floats(0.1, 20.0),
    )
    def test_never_negative(
        self, divergence: Callable[..., Tensor], pairs: list[tuple[float, float]], temperature: float
    ) -> None:
        student, teacher = torch.tensor(pairs, dtype=torch.float64).T
        value = divergence(student, teacher, temperature=temperature).item()
        assert value >= -1e-11 * temperature**2
        assert math.isfinite(value)


class TestJensenShannonInBeta:
    BETAS = (1e-8, 1e-6, 1e-3, 0.1, 0.5, 0.9, 1 - 1e-3, 1 - 1e-6, 1 - 1e-8)

    @pytest.mark.parametrize("beta", BETAS)
    @pytest.mark.parametrize("scale", [1e-2, 1.0, 20.0, 60.0, 1e4])
    @pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
    def test_value_and_gradient_in_sixty_digits(
        self, beta: float, scale: float, dtype: torch.dtype, tolerance: float
    ) -> None:
        """Gradient: Σ over classes of ∂/∂q (KL(q ‖ m) / β + …) = −log(m / q) / β, taken through the softmax."""
        student, teacher = (scale / 3 * logits for logits in random_logits(5, dtype=dtype))
        values, gradient = value_and_gradient(partial(jensen_shannon, beta=beta), student, teacher)

        with mpmath.workdps(60):
            q, p = (self.distribution(logits.tolist()) for logits in (student, teacher))
            share = mpmath.mpf(beta)
            m = [share * x + (1 - share) * y for x, y in zip(p, q, strict=True)]
            expected = sum(x * mpmath.log(x / z) for x, z in zip(p, m, strict=True)) / (1 - share)
            expected += sum(y * mpmath.log(y / z) for y, z in zip(q, m, strict=True)) / share
            slopes = [-mpmath.log(z / y) / share for y, z in zip(q, m, strict=True)]
            mean = sum(y * slope for y, slope in zip(q, slopes, strict=True))
            expected_gradient = [float(y * (slope - mean)) for y, slope in zip(q, slopes, strict=True)]

        assert values.item() == pytest.approx(float(expected), rel=tolerance, abs=tolerance)
        assert gradient.tolist() == pytest.approx(expected_gradient, rel=tolerance, abs=tolerance)

    @staticmethod
    def distribution(logits: list[float]) -> list[mpmath.mpf]:
        weights = [mpmath.exp(mpmath.mpf(logit)) for logit in logits]
        return [weight / sum(weights) for weight in weights]

    @pytest.mark.parametrize("end, limit", [(0.0, forward_kl), (1.0, reverse_kl)])
    def test_the_ends_are_the_two_kls_and_are_approached(self, end: float, limit: Callable[..., Tensor]) -> None:
        student, teacher = random_logits(4, 6)
        values, gradient = value_and_gradient(limit, student, teacher, temperature=2.0)

        for beta, tolerance in ((end, 1e-13), (abs(end - 1e-9), 1e-6), (abs(end - 1e-5), 1e-2)):
            at_beta = partial(jensen_shannon, beta=beta, temperature=2.0)
            near_values, near_gradient = value_and_gradient(at_beta, student, teacher)
            torch.testing.assert_close(near_values, values, rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(near_gradient, gradient, rtol=tolerance, atol=tolerance)

    def test_no_jump_in_the_middle(self) -> None:
        student, teacher = random_logits(4, 6)
        below, at, above = (jensen_shannon(student, teacher, beta=0.5 + step) for step in (-1e-9, 0.0, 1e-9))
        torch.testing.assert_close(below, at, rtol=1e-7, atol=0)
        torch.testing.assert_close(above, at, rtol=1e-7, atol=0)

    @pytest.mark.parametrize("beta", [1e-8, 1e-3, 0.5, 1 - 1e-3, 1 - 1e-8])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_disjoint_distributions_reach_the_bound(self, beta: float, dtype: torch.dtype) -> None:
        """p = (1, 0), q = (0, 1), m = (β, 1 − β): −log β / (1 − β) − log(1 − β) / β."""
        expected = -math.log(beta) / (1 - beta) - math.log1p(-beta) / beta
        for gap in (40.0, 200.0, INFINITY):
            student, teacher = torch.tensor([[-gap, 0.0], [0.0, -gap]], dtype=dtype)
            rel = 2e-6 if dtype == torch.float32 or gap == 40.0 else 1e-14
            assert jensen_shannon(student, teacher, beta=beta).item() == pytest.approx(expected, rel=rel)

    @pytest.mark.parametrize("beta", [0.0, 0.2, 0.5, 0.8, 1.0])
    def test_the_same_gradient_near_agreement_for_every_beta(self, beta: float) -> None:
        student, direction = random_logits(5)
        teacher = student + 1e-5 * direction
        _, expected = value_and_gradient(forward_kl, student, teacher)
        _, gradient = value_and_gradient(partial(jensen_shannon, beta=beta), student, teacher)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=0)


class TestSkewInAlpha:
    """`skewed_reverse_kl` is `skewed_kl` with the roles exchanged."""

    @pytest.mark.parametrize("alpha", [1e-8, 1e-3, 0.1, 0.5, 0.9, 1 - 1e-3])
    @pytest.mark.parametrize("scale", [1e-2, 1.0, 20.0, 60.0, 1e4])
    @pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
    def test_value_and_gradient_in_sixty_digits(
        self, alpha: float, scale: float, dtype: torch.dtype, tolerance: float
    ) -> None:
        """Gradient: Σ over classes of ∂/∂q KL(p ‖ m) = −(1 − α) p / m, taken through the softmax."""
        student, teacher = (scale / 3 * logits for logits in random_logits(5, dtype=dtype))
        values, gradient = value_and_gradient(partial(skewed_kl, alpha=alpha), student, teacher)

        with mpmath.workdps(60):
            q, p = (TestJensenShannonInBeta.distribution(logits.tolist()) for logits in (student, teacher))
            share = mpmath.mpf(alpha)
            m = [share * x + (1 - share) * y for x, y in zip(p, q, strict=True)]
            expected = sum(x * mpmath.log(x / z) for x, z in zip(p, m, strict=True))
            slopes = [-(1 - share) * x / z for x, z in zip(p, m, strict=True)]
            mean = sum(y * slope for y, slope in zip(q, slopes, strict=True))
            expected_gradient = [float(y * (slope - mean)) for y, slope in zip(q, slopes, strict=True)]

        assert values.item() == pytest.approx(float(expected), rel=tolerance, abs=tolerance)
        assert gradient.tolist() == pytest.approx(expected_gradient, rel=tolerance, abs=tolerance)

    @pytest.mark.parametrize("skewed, plain", [(skewed_kl, forward_kl), (skewed_reverse_kl, reverse_kl)])
    def test_without_skew(self, skewed: Callable[..., Tensor], plain: Callable[..., Tensor]) -> None:
        student, teacher = random_logits(4, 6)
        assert torch.equal(skewed(student, teacher, alpha=0.0), plain(student, teacher))
        torch.testing.assert_close(skewed(student, teacher, alpha=1e-9), plain(student, teacher), rtol=1e-6, atol=0)

    def test_the_reverse_exchanges_student_and_teacher(self) -> None:
        student, teacher = random_logits(4, 6)
        assert torch.equal(skewed_reverse_kl(student, teacher, alpha=0.3), skewed_kl(teacher, student, alpha=0.3))

    @pytest.mark.parametrize("divergence", [skewed_kl, skewed_reverse_kl])
    def test_bounded_where_one_model_lacks_a_class(self, divergence: Callable[..., Tensor]) -> None:
        one, other = torch.tensor([[0.0, -INFINITY], [-INFINITY, 0.0]])
        values, gradient = value_and_gradient(divergence, one, other, alpha=0.1)
        assert values.item() == pytest.approx(math.log(10)) and gradient.isfinite().all()

    def test_values_of_another_implementation(self) -> None:
        """jongwooko/distillm at d47e77f, `skewed_forward_kl` with the teacher's entropy, and `skewed_reverse_kl`."""
        student, teacher = wave(3, 4, step=1.7, scale=3), wave(3, 4, step=2.3, scale=3)
        assert skewed_kl(student, teacher).mean().item() == pytest.approx(1.1680796075089734, rel=1e-6)
        assert skewed_reverse_kl(student, teacher).mean().item() == pytest.approx(1.1707673072814941, rel=1e-6)


class TestGradient:
    @every_divergence
    @every_temperature
    @pytest.mark.parametrize("masked", [False, True])
    def test_gradcheck_of_student_and_teacher(
        self, divergence: Callable[..., Tensor], temperature: float, masked: bool
    ) -> None:
        student, teacher = (logits.requires_grad_() for logits in random_logits(3, 4))
        mask = torch.tensor([True, False, True]) if masked else None
        assert torch.autograd.gradcheck(partial(divergence, temperature=temperature, mask=mask), (student, teacher))

    @every_divergence
    def test_a_detached_teacher_gets_no_gradient(self, divergence: Callable[..., Tensor]) -> None:
        student, teacher = (logits.requires_grad_() for logits in random_logits(3, 4))
        divergence(student, teacher.detach()).sum().backward()
        assert teacher.grad is None
        assert student.grad.abs().sum() > 0

    @every_smooth
    def test_temperature_squared_keeps_the_size_of_the_gradient(self, divergence: Callable[..., Tensor]) -> None:
        """Hinton et al., equation 4, times T²: (z_i − v_i) / N for logits of mean zero."""
        student, teacher = random_logits(3, 5)
        _, gradient = value_and_gradient(divergence, student, teacher, temperature=1e5)
        centred = (student - student.mean(-1, keepdim=True)) - (teacher - teacher.mean(-1, keepdim=True))
        torch.testing.assert_close(gradient, centred / 5, rtol=1e-3, atol=1e-4)

    def test_temperature_keeps_the_size_of_the_gradient_of_total_variation(self) -> None:
        """T · ½ Σ |p − q| tends to 1 / (2 C) · Σ |z_i − v_i| for logits of mean zero."""
        student, teacher = random_logits(3, 5)
        _, gradient = value_and_gradient(total_variation, student, teacher, temperature=1e5)
        centred = (student - student.mean(-1, keepdim=True)) - (teacher - teacher.mean(-1, keepdim=True))
        signs = centred.sign()
        torch.testing.assert_close(gradient, (signs - signs.mean(-1, keepdim=True)) / 10, rtol=1e-3, atol=1e-4)

    def test_temperature_leaves_logit_mse_alone(self) -> None:
        student, teacher = random_logits(3, 5)
        assert torch.equal(logit_mse(student, teacher, temperature=7.0), logit_mse(student, teacher))


class TestPrecision:
    @every_divergence
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_finite_at_logits_of_ten_thousand(self, divergence: Callable[..., Tensor], dtype: torch.dtype) -> None:
        student = torch.tensor([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0]], dtype=dtype)
        teacher = torch.tensor([[-1e4, 1e4, 0.0], [1e4, -1e4, 0.0]], dtype=dtype)
        values, gradient = value_and_gradient(divergence, student, teacher)
        assert values.dtype == torch.float32 and gradient.dtype == dtype
        assert values.isfinite().all() and gradient.isfinite().all()
        assert values[1] == 0
        assert (values[0] == 0) if divergence is sorted_probability_distance else (values[0] > 0.9)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @every_divergence
    @every_temperature
    def test_half_precision_logits_are_computed_in_float32(
        self, divergence: Callable[..., Tensor], temperature: float, dtype: torch.dtype
    ) -> None:
        student, teacher = random_logits(4, 50, dtype=dtype)
        values, gradient = value_and_gradient(divergence, student, teacher, temperature=temperature)
        expected_values, expected_gradient = value_and_gradient(
            divergence, student.double(), teacher.double(), temperature=temperature
        )
        torch.testing.assert_close(values, expected_values.float(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(gradient, expected_gradient.to(dtype), rtol=2e-2, atol=1e-5)

    @every_divergence
    def test_the_inputs_are_left_as_they_were(self, divergence: Callable[..., Tensor]) -> None:
        mask = torch.tensor([True, False, True])
        for dtype in (torch.bfloat16, torch.float32):
            student, teacher = random_logits(3, 4, dtype=dtype)
            before = student.clone(), teacher.clone()
            divergence(student, teacher, temperature=2.0, mask=mask)
            divergence(student, teacher, mask=mask)
            assert torch.equal(student, before[0]) and torch.equal(teacher, before[1])


class TestMask:
    MASK = torch.tensor([[True, False, True], [False, True, False]])

    @every_divergence
    @every_temperature
    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
    def test_mask_equals_slicing(
        self, divergence: Callable[..., Tensor], temperature: float, dtype: torch.dtype
    ) -> None:
        student, teacher = random_logits(2, 3, 5, dtype=dtype)
        student[~self.MASK] = torch.tensor([NAN, INFINITY, -INFINITY, 0.0, 1.0], dtype=dtype)
        teacher[~self.MASK] = torch.tensor([0.0, NAN, INFINITY, -INFINITY, 1.0], dtype=dtype)

        values, gradient = value_and_gradient(divergence, student, teacher, temperature=temperature, mask=self.MASK)
        sliced_values, sliced_gradient = value_and_gradient(
            divergence, student[self.MASK], teacher[self.MASK], temperature=temperature
        )

        assert torch.equal(values[self.MASK], sliced_values) and torch.equal(gradient[self.MASK], sliced_gradient)
        assert torch.equal(values[~self.MASK], torch.zeros_like(values[~self.MASK]))
        assert torch.equal(gradient[~self.MASK], torch.zeros_like(gradient[~self.MASK]))

    @every_divergence
    @every_temperature
    def test_all_masked_is_exactly_zero(self, divergence: Callable[..., Tensor], temperature: float) -> None:
        student, teacher = random_logits(2, 3, 5)
        nothing = torch.zeros(2, 3, dtype=torch.bool)
        values, gradient = value_and_gradient(divergence, student, teacher, temperature=temperature, mask=nothing)
        assert torch.equal(values, torch.zeros(2, 3, dtype=torch.float64))
        assert torch.equal(gradient, torch.zeros_like(student))

    @every_divergence
    def test_a_single_position_has_a_mask_without_axes(self, divergence: Callable[..., Tensor]) -> None:
        student, teacher = random_logits(5)
        assert divergence(student, teacher, mask=torch.tensor(False)).item() == 0
        assert torch.equal(divergence(student, teacher, mask=torch.tensor(True)), divergence(student, teacher))


class TestAbsentClasses:
    @every_divergence
    @every_temperature
    def test_a_class_that_neither_has_equals_dropping_it(
        self, divergence: Callable[..., Tensor], temperature: float
    ) -> None:
        student, teacher = random_logits(2, 6)
        student[:, [1, 4]] = teacher[:, [1, 4]] = -INFINITY
        present = [0, 2, 3, 5]

        values, gradient = value_and_gradient(divergence, student, teacher, temperature=temperature)
        dropped_values, dropped_gradient = value_and_gradient(
            divergence, student[:, present], teacher[:, present], temperature=temperature
        )

        torch.testing.assert_close(values, dropped_values)
        torch.testing.assert_close(gradient[:, present], dropped_gradient)
        assert torch.equal(gradient[:, [1, 4]], torch.zeros(2, 2, dtype=torch.float64))

    def test_a_class_that_only_the_student_lacks(self) -> None:
        student, teacher = torch.tensor([0.0, -INFINITY]), torch.tensor([0.0, 0.0])
        values, gradient = value_and_gradient(forward_kl, student, teacher)
        assert values.item() == INFINITY
        assert torch.equal(gradient, torch.tensor([0.5, -0.5]))
        assert reverse_kl(student, teacher).item() == pytest.approx(math.log(2))
        assert total_variation(student, teacher).item() == pytest.approx(0.5)
        assert logit_mse(student, teacher).item() == INFINITY
        # q = (1, 0), p = (½, ½), m = (¾, ¼): 2 (½ log ⅔ + ½ log 2) + 2 log 4/3
        assert jensen_shannon(student, teacher).item() == pytest.approx(3 * math.log(4 / 3))

    def test_a_class_that_only_the_teacher_lacks(self) -> None:
        student, teacher = torch.tensor([0.0, 0.0]), torch.tensor([0.0, -INFINITY])
        assert forward_kl(student, teacher).item() == pytest.approx(math.log(2))
        assert reverse_kl(student, teacher).item() == INFINITY
        values, gradient = value_and_gradient(jensen_shannon, student, teacher)
        assert values.item() == pytest.approx(3 * math.log(4 / 3))
        assert gradient.isfinite().all()

    @every_divergence
    def test_nan_where_a_position_counts_is_not_hidden(self, divergence: Callable[..., Tensor]) -> None:
        student, teacher = random_logits(2, 4)
        teacher[0, 1] = NAN
        values = divergence(student, teacher)
        assert values[0].isnan() and values[1].isfinite()


class TestExecution:
    @every_divergence
    @every_temperature
    @pytest.mark.parametrize("masked", [False, True])
    def test_a_teacher_from_inference_mode(
        self, divergence: Callable[..., Tensor], temperature: float, masked: bool
    ) -> None:
        for dtype in (torch.bfloat16, torch.float32):
            student, teacher = random_logits(3, 4, dtype=dtype)
            with torch.inference_mode():
                inferred = teacher.clone()
                mask = torch.tensor([True, False, True]) if masked else None
            values, gradient = value_and_gradient(divergence, student, inferred, temperature=temperature, mask=mask)
            expected_values, expected_gradient = value_and_gradient(
                divergence, student, teacher, temperature=temperature, mask=mask
            )
            assert inferred.is_inference()
            assert torch.equal(values, expected_values) and torch.equal(gradient, expected_gradient)

    @every_divergence
    def test_nothing_reads_a_value_on_the_host(self, divergence: Callable[..., Tensor]) -> None:
        """A meta tensor has no values, so whatever asks for one fails."""
        student = torch.empty(2, 3, 5, device="meta", requires_grad=True)
        mask = torch.empty(2, 3, device="meta", dtype=torch.bool)
        values = divergence(student, torch.empty(2, 3, 5, device="meta"), temperature=2.0, mask=mask)
        values.sum().backward()
        assert values.shape == (2, 3) and values.dtype == torch.float32
        assert student.grad.shape == student.shape

    @pytest.mark.parametrize(
        "divergence", slow_but([forward_kl], [CASES[name][0] for name in CASES if name[-1].isalpha()])
    )
    def test_compiles_without_a_break_also_when_the_temperature_moves(self, divergence: Callable[..., Tensor]) -> None:
        torch.compiler.reset()
        compiled = torch.compile(divergence, backend="aot_eager", fullgraph=True)
        student, teacher = random_logits(3, 4, dtype=torch.float32)
        mask = torch.tensor([True, False, True])
        for temperature in (4.0, 3.5, 3.0, 1.0):
            kwargs = {"temperature": temperature, "mask": mask}
            values, gradient = value_and_gradient(compiled, student, teacher, **kwargs)
            expected_values, expected_gradient = value_and_gradient(divergence, student, teacher, **kwargs)
            torch.testing.assert_close(values, expected_values)
            torch.testing.assert_close(gradient, expected_gradient)


class TestRefusals:
    @every_divergence
    @pytest.mark.parametrize("temperature", [0.0, -1.0, INFINITY, NAN])
    def test_temperature(self, divergence: Callable[..., Tensor], temperature: float) -> None:
        with pytest.raises(
            ConfigurationError, match=f"temperature must be a finite number above 0, got {temperature}"
        ):
            divergence(*random_logits(2, 3), temperature=temperature)

    @pytest.mark.parametrize("beta", [-0.1, 1.5, NAN])
    def test_beta(self, beta: float) -> None:
        with pytest.raises(ConfigurationError, match=rf"beta must lie in \[0, 1\], got {beta}"):
            jensen_shannon(*random_logits(2, 3), beta=beta)

    @pytest.mark.parametrize("divergence", [skewed_kl, skewed_reverse_kl])
    @pytest.mark.parametrize("alpha", [-0.1, 1.0, NAN])
    def test_alpha(self, divergence: Callable[..., Tensor], alpha: float) -> None:
        with pytest.raises(ConfigurationError, match=rf"alpha must lie in \[0, 1\), got {alpha}"):
            divergence(*random_logits(2, 3), alpha=alpha)

    @every_divergence
    def test_shapes(self, divergence: Callable[..., Tensor]) -> None:
        with pytest.raises(ConfigurationError, match=r"shape \(2, 3\) and teacher_logits \(4, 3\)"):
            divergence(torch.zeros(2, 3), torch.zeros(4, 3))
        if divergence is not sorted_probability_distance:
            with pytest.raises(ConfigurationError, match=r"shape \(2, 3\) and teacher_logits \(2, 4\)"):
                divergence(torch.zeros(2, 3), torch.zeros(2, 4))
        with pytest.raises(ConfigurationError, match=r"classes on the last axis"):
            divergence(torch.tensor(1.0), torch.tensor(1.0))

    @every_divergence
    def test_integers(self, divergence: Callable[..., Tensor]) -> None:
        with pytest.raises(ConfigurationError, match=r"student_logits are torch\.int64"):
            divergence(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3))

    @every_divergence
    def test_masks(self, divergence: Callable[..., Tensor]) -> None:
        with pytest.raises(ConfigurationError, match=r"mask must be bool.*torch\.float32"):
            divergence(*random_logits(2, 3), mask=torch.ones(2))
        with pytest.raises(ConfigurationError, match=r"mask has shape \(3,\).*\(2,\)"):
            divergence(*random_logits(2, 3), mask=torch.ones(3, dtype=torch.bool))

    def test_all_faults_at_once(self) -> None:
        with pytest.raises(ConfigurationError, match=r"teacher_logits \(2, 4\).*temperature .* got 0"):
            forward_kl(torch.zeros(2, 3), torch.zeros(2, 4), temperature=0)

"""Schedules at exact values."""

import math
import sys
from dataclasses import FrozenInstanceError
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_distill.errors import ConfigurationError
from hf_distill.schedules import Constant, Cosine, During, Linear, Schedule, as_schedule


KINDS = [Linear, Cosine]
finite = st.floats(-1e300, 1e300)


@pytest.mark.parametrize("progress", [-1.0, 0.0, 0.3, 1.0, 2.0])
def test_constant(progress: float) -> None:
    assert Constant(2.5)(progress) == 2.5


@pytest.mark.parametrize("progress, expected", [(0.0, 4.0), (0.25, 3.25), (0.5, 2.5), (0.75, 1.75), (1.0, 1.0)])
def test_linear(progress: float, expected: float) -> None:
    assert Linear(4.0, 1.0)(progress) == expected


@pytest.mark.parametrize(
    "progress, expected",
    [(0.0, 4.0), (1 / 3, 3.25), (0.5, 2.5), (2 / 3, 1.75), (0.25, 2.5 + 1.5 / math.sqrt(2)), (1.0, 1.0)],
)
def test_cosine(progress: float, expected: float) -> None:
    """cos(π / 3) = ½, so a third of the way is a quarter of the change."""
    assert Cosine(4.0, 1.0)(progress) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    "start, end, expected",
    [(0.25, 0.75, [0, 2, 2, 0, 0]), (0.0, 0.5, [2, 2, 0, 0, 0]), (0.5, 1.0, [0, 0, 2, 2, 2])],
)
def test_during_a_part_of_training(start, end, expected) -> None:
    """From its start on, to before its end; the end of training belongs to the last part."""
    schedule = During(2.0, start, end)
    assert [schedule(progress) for progress in (0.0, 0.25, 0.5, 0.75, 1.0)] == expected
    assert (schedule.minimum, schedule.maximum) == (0.0, 2.0)
    assert (During(-2.0, start, end).minimum, During(-2.0, start, end).maximum) == (-2.0, 0.0)


@pytest.mark.parametrize("start, end", [(0.5, 0.5), (0.75, 0.25), (-0.5, 1.0), (0.5, 1.5)])
def test_a_part_that_is_none(start, end) -> None:
    with pytest.raises(ConfigurationError, match=rf"start={start} and end={end} are fractions of training"):
        During(1.0, start, end)


@pytest.mark.parametrize("kind", KINDS)
def test_progress_outside_training_is_its_nearer_end(kind: type[Schedule]) -> None:
    schedule = kind(0.1, 0.7)
    assert [schedule(progress) for progress in (-5, 0, -math.inf)] == [0.1] * 3
    assert [schedule(progress) for progress in (1, 1.0001, math.inf)] == [0.7] * 3


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=50)
@given(start=finite, end=finite, progress=st.floats(0, 1))
def test_values_stay_within_the_bounds_and_move_one_way(
    kind: type[Schedule], start: float, end: float, progress: float
) -> None:
    schedule = kind(start, end)
    assert (schedule.minimum, schedule.maximum) == (min(start, end), max(start, end))
    assert schedule.minimum <= schedule(progress) <= schedule.maximum
    assert (schedule(0.0), schedule(1.0)) == (start, end)
    values = [schedule(step / 10) for step in range(11)]
    slack = 1e-15 * max(abs(start), abs(end))
    direction = 1 if end >= start else -1
    assert all((after - before) * direction >= -slack for before, after in pairwise(values))


def test_bounds_of_a_constant() -> None:
    assert (Constant(3).minimum, Constant(3).maximum) == (3.0, 3.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "2", None, True, 1j])
def test_what_is_no_finite_number_is_refused(value: object) -> None:
    with pytest.raises(ConfigurationError, match="Constant needs finite numbers, got value="):
        Constant(value)
    with pytest.raises(ConfigurationError, match="Expected a finite number or a schedule"):
        as_schedule(value)


def test_all_faults_at_once() -> None:
    with pytest.raises(ConfigurationError, match="Linear needs finite numbers, got start=nan, end='1'"):
        Linear(math.nan, "1")


def test_progress_that_is_nan_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="progress is NaN"):
        Linear(0.0, 1.0)(math.nan)


def test_as_schedule() -> None:
    schedule = Cosine(1.0, 0.0)
    assert as_schedule(schedule) is schedule
    assert as_schedule(2) == Constant(2.0)
    assert type(as_schedule(2).minimum) is float


def test_equality_hash_and_repr_are_those_of_the_fields() -> None:
    assert Linear(1, 2) == Linear(1.0, 2.0) and hash(Linear(1, 2)) == hash(Linear(1.0, 2.0))
    assert Linear(1, 2) != Linear(2, 1)
    assert Linear(1, 2) != Cosine(1, 2)
    assert repr(Linear(1, 2)) == "Linear(start=1.0, end=2.0)"


def test_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Constant(1.0).value = 2.0


def test_the_base_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Schedule()


@settings(deadline=None)
@given(value=finite, ends=st.tuples(st.floats(0, 1), st.floats(0, 1)), progress=st.floats(-1, 2))
def test_during_by_its_definition(value: float, ends: tuple[float, float], progress: float) -> None:
    start, end = sorted(ends)
    if start == end:
        with pytest.raises(ConfigurationError):
            During(value, start, end)
        return
    schedule, progress_in_training = During(value, start, end), min(max(progress, 0.0), 1.0)
    is_on = start <= progress_in_training < end or progress_in_training == end == 1
    assert schedule(progress) == (value if is_on else 0.0)
    assert schedule.minimum <= schedule(progress) <= schedule.maximum


@settings(deadline=None)
@given(value=finite, cuts=st.lists(st.floats(0, 1), max_size=4), progress=st.floats(0, 1))
def test_parts_of_training_follow_each_other_without_a_gap(value: float, cuts: list[float], progress: float) -> None:
    bounds = sorted({0.0, *cuts, 1.0})
    assert [During(value, *part)(progress) for part in pairwise(bounds)].count(value) == (
        1 if value else len(bounds) - 1
    )


@settings(deadline=None)
@given(start=st.floats(-1e6, 1e6), end=st.floats(-1e6, 1e6), progress=st.floats(0, 1))
def test_a_schedule_and_its_reverse_meet(start: float, end: float, progress: float) -> None:
    for kind in KINDS:
        assert kind(start, end)(progress) == pytest.approx(kind(end, start)(1 - progress), abs=1e-9 * 1e6, rel=1e-9)


@given(st.integers() | st.floats() | st.text() | st.booleans() | st.none() | st.binary() | st.lists(st.floats()))
def test_anything_is_a_schedule_or_an_error_of_ours(value: object) -> None:
    try:
        found = as_schedule(value)
    except ConfigurationError:
        assert not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= sys.float_info.max
    else:
        assert found(0.5) == float(value)

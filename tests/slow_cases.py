"""Which cases of a parametrised test run by default, and which with the slow tests."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(quick: Iterable[Any], cases: Iterable[Any]) -> list[Any]:
    """The cases, all marked `slow` but those that are named, which must be among them."""
    quick, cases = list(quick), list(cases)
    assert all(case in cases for case in quick), f"{quick} must be some of {cases}"
    several = [case if isinstance(case, tuple) else (case,) for case in cases]
    marks = [() if case in quick else pytest.mark.slow for case in cases]
    return [pytest.param(*values, marks=mark) for values, mark in zip(several, marks, strict=True)]

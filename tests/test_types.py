"""The nouns: how requirements join."""

import pytest

from hf_distill.types import Requirements


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("teacher", [False, True])
def test_requirements_join(labels, teacher):
    assert Requirements(labels=labels) | Requirements(teacher=teacher) == Requirements(labels, teacher)
    assert Requirements(teacher=teacher) | Requirements(labels=labels) == Requirements(labels, teacher)


def test_nothing_is_the_neutral_element():
    everything = Requirements(labels=True, teacher=True)
    assert everything | Requirements() == everything
    assert Requirements() | Requirements() == Requirements(labels=False, teacher=False)

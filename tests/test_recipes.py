"""Published methods are the objectives that their papers say."""

import pytest

from hf_distill import Linear, recipes
from hf_distill.errors import ConfigurationError
from hf_distill.terms import HardLabelTerm, SoftTargetTerm, UniversalLogitTerm
from hf_distill.types import Requirements


def test_hinton():
    objective = recipes.hinton(temperature=4.0, alpha=0.1)
    assert {name: weighted.term for name, weighted in objective.terms.items()} == {
        "labels": HardLabelTerm(),
        "soft": SoftTargetTerm(4.0),
    }
    assert objective.weights(progress=0.5) == {"labels": 0.1, "soft": 0.9}


def test_hinton_reads_only_what_it_weighs():
    assert recipes.hinton(alpha=0).requires == Requirements(teacher=True)
    assert recipes.hinton(alpha=1).requires == Requirements(labels=True)


def test_hinton_with_a_moving_temperature():
    assert recipes.hinton(temperature=Linear(4.0, 2.0)).log_values(progress=0.5) == {"temperature/soft": 3.0}


@pytest.mark.parametrize("alpha", [-0.5, 1.5])
def test_hinton_refuses_a_negative_weight(alpha):
    with pytest.raises(ConfigurationError, match=r"weight of term '(labels|soft)' must never be below 0, got -0\.5"):
        recipes.hinton(alpha=alpha)


def test_hinton_refuses_a_temperature_of_0():
    with pytest.raises(ConfigurationError, match=r"temperature must be above 0 throughout training, got 0"):
        recipes.hinton(temperature=0)


def test_uld():
    """Temperature 1 and λ = 1.5 are those of the authors' code."""
    objective = recipes.uld()
    assert {name: weighted.term for name, weighted in objective.terms.items()} == {
        "labels": HardLabelTerm(),
        "soft": UniversalLogitTerm(1.0),
    }
    assert objective.weights(progress=0.5) == {"labels": 1.0, "soft": 1.5}


def test_uld_with_values_that_move():
    objective = recipes.uld(temperature=Linear(4.0, 2.0), weight=Linear(0.0, 1.0))
    assert objective.log_values(progress=0.5) == {"temperature/soft": 3.0, "weight/soft": 0.5}

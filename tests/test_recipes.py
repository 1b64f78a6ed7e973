"""Published methods are the objectives that their papers say."""

import pytest
from transformers import BertForMaskedLM

from hf_distill import Linear, recipes
from hf_distill.errors import ConfigurationError
from hf_distill.functional import cosine_distance, normalized_squared_distance
from hf_distill.terms import AttentionScoreTerm, HardLabelTerm, HiddenStateTerm, RelationTerm, SoftTargetTerm
from hf_distill.types import Requirements
from tests.tiny_models import bert
from tests.tiny_trainers import loss_logs, trainer_for


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


def terms_of(objective):
    return {name: weighted.term for name, weighted in objective.terms.items()}


def test_patient_kd():
    objective = recipes.patient_kd(temperature=10.0, alpha=0.3, beta=0.2, layer_map="top")
    assert terms_of(objective) == {
        "labels": HardLabelTerm(),
        "soft": SoftTargetTerm(10.0),
        "patient": HiddenStateTerm("top", normalized_squared_distance, "first"),
    }
    assert objective.weights(0.0) == {"labels": 0.3, "soft": 0.7, "patient": 0.2}


def test_distilbert():
    objective = recipes.distilbert()
    assert terms_of(objective)["cosine"] == HiddenStateTerm("last", cosine_distance)
    assert objective.weights(0.0) == {"soft": 5.0, "labels": 2.0, "cosine": 1.0}


def test_tinybert():
    assert terms_of(recipes.tinybert("layers")) == {
        "embeddings": HiddenStateTerm([(0, 0)]),
        "hidden": HiddenStateTerm("uniform"),
        "attention": AttentionScoreTerm("uniform"),
    }
    assert terms_of(recipes.tinybert("prediction")) == {"soft": SoftTargetTerm(1.0)}
    with pytest.raises(ConfigurationError, match="stage must be 'layers' or 'prediction', got 'both'"):
        recipes.tinybert("both")


def test_minilm():
    terms = terms_of(recipes.minilm())
    assert [(term.relations, term.layer_map) for term in terms.values()] == [
        (("attention",), "last"),
        (("values",), "last"),
    ]


def test_minilmv2():
    objective = recipes.minilmv2(num_relation_heads=4, teacher_layer=3)
    assert terms_of(objective) == {
        "relations": RelationTerm([(-1, 3)], ("queries", "keys", "values"), num_relation_heads=4)
    }
    assert not objective.requires.labels


@pytest.mark.parametrize(
    "objective",
    [
        recipes.patient_kd(),
        recipes.distilbert(),
        recipes.tinybert("layers"),
        recipes.tinybert("prediction"),
        recipes.minilm(),
        recipes.minilmv2(num_relation_heads=4),
    ],
    ids=["patient_kd", "distilbert", "tinybert layers", "tinybert prediction", "minilm", "minilmv2"],
)
def test_a_student_comes_closer_to_its_teacher(tmp_path, objective):
    """Masked tokens, by every recipe, for some steps."""
    student, teacher = bert(BertForMaskedLM, layers=2), bert(BertForMaskedLM, layers=4, hidden_size=24)
    changes = {"max_steps": 30, "per_device_train_batch_size": 8, "logging_steps": 1}
    trainer = trainer_for(tmp_path, "masked", student, teacher, objective=objective, **changes)
    trainer.train()
    losses = [log["loss"] for log in loss_logs(trainer)]
    assert losses[-1] < 0.8 * losses[0]
    assert all(f"loss/{name}" in loss_logs(trainer)[0] for name in objective.terms)

"""The card of a student: what it says, and that the Hub's own classes read it."""

import inspect

import pytest
import yaml
from huggingface_hub import ModelCard

from hf_distill import HiddenStateTerm, Objective, SoftTargetTerm, distillation_report, recipes
from hf_distill.model_card import _citation, _paper, model_card, repository_name
from tests.report.tiny_reports import reported_trainer
from tests.tiny_models import model_for


RECIPES = [name for name, value in vars(recipes).items() if inspect.isfunction(value) and name[0] != "_"]
RECIPES = [name for name in RECIPES if vars(recipes)[name].__module__ == recipes.__name__]


def card_for(tmp_path, task="single_label", report=False, metadata=None, **changes):
    trainer = reported_trainer(tmp_path, task, **changes)
    made = distillation_report(trainer, num_resamples=5, batch_sizes=(1,)) if report else None
    return model_card(trainer, "user/student", made, **(metadata or {}))


def test_every_recipe_is_cited():
    assert len(RECIPES) > 12
    for name in RECIPES:
        arguments = {"tinybert": {"stage": "layers"}, "mobilebert_like": {"layer_map": [(1, 1)]}}.get(name, {})
        assert getattr(recipes, name)(**arguments).recipe == name
        assert _paper(name) is not None, f"no reference is read out of the docstring of recipes.{name}"


def test_bibtex():
    assert _citation("hinton").splitlines()[1:-1] == [
        "@misc{hinton2015,",
        "  title = {Distilling the Knowledge in a Neural Network},",
        "  author = {Hinton and Vinyals and Dean},",
        "  year = {2015},",
        "  url = {https://arxiv.org/abs/1503.02531}",
        "}",
    ]
    assert "author = {Jiao and others}" in _citation("tinybert")
    assert _citation(None) == ""


def test_the_method_and_its_terms(tmp_path):
    text = card_for(tmp_path).text
    assert "Recipe: `recipes.hinton`" in text and "https://arxiv.org/abs/1503.02531" in text
    assert "| labels | 0.3 | `HardLabelTerm()` |" in text
    assert "| soft | 0.7 | `SoftTargetTerm(temperature=3.0, divergence=forward_kl)` |" in text


def test_an_objective_of_its_own_with_a_layer_map(tmp_path):
    objective = Objective({"soft": (1.0, SoftTargetTerm(2.0)), "hidden": (0.5, HiddenStateTerm([(1, 2)]))})
    text = card_for(tmp_path, objective=objective).text
    assert "An objective of its own" in text and "bibtex" not in text
    assert "layer_map=[(1, 2)]" in text


def test_metadata_with_a_report(tmp_path):
    card = card_for(tmp_path, report=True, metadata={"dataset_tags": "nyu-mll/glue", "dataset_args": "sst2"})
    again = ModelCard(str(card))
    assert again.data.to_dict() == card.data.to_dict()
    (index,) = yaml.safe_load(again.data.to_yaml())["model-index"]
    (result,) = index["results"]
    assert index["name"] == "student"
    assert result["task"]["type"] == again.data.pipeline_tag == "text-classification"
    assert result["dataset"] == {"name": "nyu-mll/glue", "type": "nyu-mll/glue", "args": {"config": "sst2"}}
    assert {metric["type"] for metric in result["metrics"]} >= {"accuracy", "macro_f1", "agreement"}
    assert "weights on disk" in again.text and "p50, ms" in again.text


def test_base_models_are_those_of_the_hub(tmp_path):
    teacher, student = model_for("single_label", 2), model_for("single_label", 1)
    teacher.config._name_or_path, teacher.config._commit_hash = "org/teacher", "abc123"
    card = card_for(tmp_path, teacher=teacher, student=student)
    assert card.data.base_model == "org/teacher" and card.data.base_model_relation == "finetune"
    assert "[org/teacher](https://huggingface.co/org/teacher) at revision `abc123`" in card.text
    student.config._name_or_path = "org/small"
    assert card_for(tmp_path, teacher=teacher, student=student).data.base_model == "org/small"


def test_folders_are_nobodys_business(tmp_path):
    teacher = model_for("single_label", 2)
    teacher.save_pretrained(tmp_path / "secret-place")
    teacher = type(teacher).from_pretrained(tmp_path / "secret-place")
    card = card_for(tmp_path, teacher=teacher)
    assert "secret-place" not in str(card) and card.data.base_model is None
    assert "a BertForSequenceClassification of" in card.text


@pytest.mark.parametrize(
    ("task", "model_class"), [("causal", "AutoModelForCausalLM"), ("images", "AutoModelForImage")]
)
def test_how_to_use(task, model_class, tmp_path):
    text = card_for(tmp_path, task).text
    assert f"from transformers import {model_class}" in text and '.from_pretrained("user/student")' in text


def test_names_of_repositories():
    assert repository_name("user/student", "/somewhere/else") == "user/student"
    assert repository_name(None, "/somewhere/my-student") == "my-student"
    assert repository_name(None, "/some where/not a name") == "student"

from pathlib import Path

import pytest
import yaml
from datasets import DatasetDict

from hf_distill import DistillationTrainingArguments, recipes
from hf_distill.cli.arguments import DataOptions, ObjectiveOptions, StudentOptions
from hf_distill.cli.calls import (
    data_of,
    kept_layers_of,
    objective_of,
    objective_taught_by,
    rows_unseen_by,
    source_of,
    task_of,
)
from hf_distill.errors import ConfigurationError
from hf_distill.report.term_words import term_rows
from tests.tiny_jobs import put_teacher, rows_of


ARGS = DistillationTrainingArguments(output_dir="unused", use_cpu=True)


def test_the_task_that_was_named_or_that_of_the_model(tmp_path):
    put_teacher(tmp_path, "fill-mask")
    assert task_of(None, str(tmp_path)) == "fill-mask"
    assert task_of("text-classification", str(tmp_path)) == "text-classification"
    with pytest.raises(
        ConfigurationError,
        match=r"task='poetry' is not known; these are: text-classification.* by `DistillationTrainer`",
    ):
        task_of("poetry", str(tmp_path))


def test_rows(tmp_path):
    rows = DatasetDict(train=rows_of("text-classification"), test=rows_of("text-classification", 6))
    rows.save_to_disk(tmp_path)
    options = DataOptions(str(tmp_path), max_train_samples=5, max_length=9, eval_dataset=str(tmp_path))
    data = data_of(options, "text-classification", 0)
    assert (len(data.train), len(data.evaluation)) == (5, 6)
    assert data.settings["max_length"] == 9
    assert data.columns == {"text": "sentence", "label": "label"}
    assert data_of(options, "text-classification", 0, trains=False).train is None


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ({}, (None, 4)),  # no job, so all of the rows
        ({"dataset": "other"}, (None, 4)),
        ({"dataset": "rows", "seed": 1}, (36, 4)),
        ({"dataset": "rows", "seed": 1, "train_split": "fit", "eval_split": "fit"}, (40, 40)),
        ({"dataset": "rows", "eval_dataset": "more"}, (40, 7)),
    ],
)
def test_rows_that_a_job_has_not_trained_on(job, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put_teacher("model", "text-classification")
    split = job.get("train_split", "train")
    DatasetDict({split: rows_of("text-classification", 40)}).save_to_disk("rows")
    DatasetDict(train=rows_of("text-classification", 7)).save_to_disk("more")
    if "dataset" not in job or job["dataset"] == "other":
        DatasetDict(test=rows_of("text-classification", 4)).save_to_disk("rows")
    if job:
        Path("model", "arguments.yaml").write_text(yaml.safe_dump(job))
    data = rows_unseen_by("model", DataOptions("./rows"), "text-classification")
    assert (data.train and len(data.train), len(data.evaluation)) == expected
    if job.get("seed") == 1 and split == "train":
        held_out = data_of(DataOptions("rows"), "text-classification", 1).evaluation
        assert data.evaluation["sentence"][:] == held_out["sentence"][:]


def test_by_what_a_job_has_taught(tmp_path):
    assert objective_taught_by(str(tmp_path)) is None
    jobs = {
        "{model: m}": None,  # fine-tuned, without a teacher
        "{teacher: t, alpha: 0.25, temperature: 3}": recipes.hinton(3.0, 0.25),
        "{teacher: t, recipe: dkd, recipe_args: 'beta: 3'}": recipes.dkd(beta=3),
    }
    for job, objective in jobs.items():
        (tmp_path / "arguments.yaml").write_text(job)
        found = objective_taught_by(str(tmp_path))
        assert (found and term_rows(found)) == (objective and term_rows(objective))


def test_the_student():
    assert source_of(StudentOptions("x", from_scratch=True)).from_scratch
    source = source_of(StudentOptions(hidden_size=8, layers="0,3"))
    assert {name: size for name, size in source.sizes.items() if size} == {"hidden_size": 8, "layers": [0, 3]}
    assert source_of(StudentOptions(layers="last")).sizes["layers"] == "last"


@pytest.mark.parametrize("layers", ["0,x", "3,", "1;2", "1.5"])
def test_layers_that_are_no_numbers(layers):
    with pytest.raises(ConfigurationError, match=f"layers='{layers}' is neither a rule nor numbers, as 0,3,11"):
        source_of(StudentOptions(layers=layers))


@pytest.mark.parametrize(
    ("given", "layers"),
    [
        (None, None),
        ("-1", [-1]),
        ("0,3,-1", [0, 3, -1]),
        ("encoder: [3, 6], decoder: [6]", {"encoder": [3, 6], "decoder": [6]}),
        ('{"decoder": [6]}', {"decoder": [6]}),
    ],
)
def test_layers_of_a_cache(given, layers):
    assert kept_layers_of(given) == layers


@pytest.mark.parametrize("given", ["last", "1.5", "3,x", "true", "encoder: 3", "{}", "decoder: [six]"])
def test_layers_of_a_cache_that_are_no_numbers(given):
    with pytest.raises(ConfigurationError, match=r"names no layers to keep. Give their numbers, as 0,3,-1"):
        kept_layers_of(given)


@pytest.mark.parametrize("given", ["{", "}", "a: *b", "a: 2024-99-99", "a: !!python/name:os.system"])
def test_arguments_of_a_recipe_that_cannot_be_read(given):
    with pytest.raises(ConfigurationError, match=r"recipe_args=.* cannot be read"):
        objective_of(ObjectiveOptions("dkd", given), ARGS)


def test_recipes():
    assert objective_of(ObjectiveOptions(), ARGS) is None
    objective = objective_of(ObjectiveOptions("dkd", "temperature: 3, beta: 2"), ARGS)
    assert objective.weights(0.0)["non_target"] == 2.0
    assert list(objective_of(ObjectiveOptions("tinybert", '{"stage": "prediction"}'), ARGS).terms) == ["soft"]


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        (ObjectiveOptions("hinton", "alpha: 0.1"), {}, "hinton is told by --temperature and --alpha"),
        (ObjectiveOptions("dkd"), {"alpha": 0.1}, "--alpha=0.1 is of the recipe hinton, and the recipe is dkd"),
        (ObjectiveOptions("dkd", "gamma: 1"), {}, "does not fit dkd: .*unexpected keyword argument 'gamma'"),
        (ObjectiveOptions("tinybert"), {}, "missing 1 required positional argument: 'stage'"),
    ],
)
def test_refuses_arguments_of_another_recipe(options, changes, message):
    args = DistillationTrainingArguments(output_dir="unused", use_cpu=True, **changes)
    with pytest.raises(ConfigurationError, match=message):
        objective_of(options, args)

"""A column of answers teaches what the model would that gave them."""

import math

import pytest
import torch
from datasets import Dataset
from transformers import BertModel

from hf_distill import (
    ColumnTeacher,
    DistillationTrainer,
    EnsembleTeacher,
    HiddenStateTerm,
    Objective,
    RoutedTeacher,
    SoftTargetTerm,
    cache_teacher,
    distillation_report,
)
from hf_distill.errors import (
    ClassMismatchError,
    ConfigurationError,
    LengthMismatchError,
    MissingInputError,
    MissingTeacherError,
    UnsupportedModelError,
)
from hf_distill.functional import reverse_kl
from hf_distill.heads import CausalLMHead, SimilarityHead, head_of
from tests.gradients import alpha_of
from tests.teachers.test_cached import check_equal_training, rows_of, trained
from tests.tiny_models import PaddingCollator, bert, model_for, rows_for
from tests.tiny_trainers import trainer_for


ONE_A_ROW = (
    *("single_label", "multi_label", "open_multi_label", "regression", "choices", "next_sentence"),
    *("decoded_single_label", "images", "sounds", "embeddings"),
)


def answered(task, model, holds="logits", rows=None):
    """Rows with a column of what a model says of each."""
    rows = rows_of(task) if rows is None else rows
    batch = PaddingCollator()(rows)
    head = head_of(model).resolved(batch)
    inputs = {name: value for name, value in batch.items() if name not in head.label_names}
    with torch.no_grad():
        outputs = model.eval()(**inputs, **head.derived_inputs(model, batch))
        said = head.logits(outputs, batch) if task == "embeddings" else outputs["logits"]
    if holds == "probabilities":
        said = said.sigmoid() if task.endswith("multi_label") else said.softmax(-1)
    return [{**row, "said": each.tolist()} for row, each in zip(rows, said, strict=True)]


@pytest.mark.parametrize("task", ONE_A_ROW)
def test_a_column_is_the_model_that_filled_it(task, tmp_path):
    model = model_for(task, 2)
    online = trained(tmp_path, task, model)
    column = trained(tmp_path, task, ColumnTeacher("said"), rows=answered(task, model))
    check_equal_training(online, column, task)


@pytest.mark.parametrize("task", ["single_label", "multi_label", "open_multi_label", "images"])
def test_probabilities_are_the_model_too(task, tmp_path):
    model = model_for(task, 2)
    teacher = ColumnTeacher("said", holds="probabilities")
    column = trained(tmp_path, task, teacher, rows=answered(task, model, "probabilities"))
    check_equal_training(trained(tmp_path, task, model), column, task)


def test_embeddings_of_another_width_are_compared_by_whom_they_find_near(tmp_path):
    wide = bert(BertModel, 2, hidden_size=24, add_pooling_layer=False)
    rows = answered("embeddings", wide)
    with pytest.raises(LengthMismatchError, match="embeddings have width 16 and the teacher's 24"):
        trained(tmp_path, "embeddings", ColumnTeacher("said"), rows=rows)
    head = SimilarityHead()
    online = trained(tmp_path, "embeddings", wide, head=head)
    check_equal_training(
        online, trained(tmp_path, "embeddings", ColumnTeacher("said"), rows=rows, head=head), "embeddings"
    )


def test_classes_are_found_by_their_names(tmp_path):
    names = {0: "no", 1: "yes", 2: "maybe"}
    student, teacher = (bert(layers=layers, num_labels=3, id2label=names) for layers in (1, 2))
    rows = answered("single_label", teacher)
    turned = [{**row, "said": [row["said"][index] for index in (2, 0, 1)]} for row in rows]
    column = ColumnTeacher("said", classes=["maybe", "No", "yes"])
    online, ours = (
        trained(
            tmp_path, "single_label", each, rows=data, student=bert(num_labels=3, id2label=student.config.id2label)
        )
        for each, data in ((teacher, None), (column, turned))
    )
    check_equal_training(online, ours, "single_label")
    with pytest.raises(ClassMismatchError, match=r"which lacks \['maybe'\]"):
        trainer_for(tmp_path, student=student, teacher=ColumnTeacher("said", classes=["no", "yes"]), rows=rows)


def test_an_order_that_is_taken_on_trust_is_said(tmp_path, caplog):
    student = bert(num_labels=3, id2label={0: "low", 1: "middle", 2: "high"})
    trainer_for(tmp_path, student=student, teacher=ColumnTeacher("votes"))
    assert "column 'votes' does not name its classes" in caplog.text
    assert "['low', 'middle', 'high']" in caplog.text


def test_votes_of_nobody_are_not_never(tmp_path):
    rows = [{**row, "votes": [1.0, 0.0, 0.0]} for row in rows_of("single_label")]
    trainer = trainer_for(
        tmp_path,
        teacher=ColumnTeacher("votes", holds="probabilities"),
        rows=rows,
        objective=Objective({"soft": (1.0, SoftTargetTerm(temperature=2.0, divergence=reverse_kl))}),
    )
    trainer.train()
    assert math.isfinite(trainer.state.log_history[-1]["train_loss"])


def test_the_three_argument_call_trains_evaluates_and_reports(tmp_path):
    data = Dataset.from_list(answered("single_label", model_for("single_label", 2)))
    student = model_for("single_label", 1)
    trainer = trainer_for(
        tmp_path,
        student=student,
        teacher=ColumnTeacher("said"),
        rows=data,
        eval_dataset=data,
        report_agreement=True,
    )
    trainer.train()
    assert 0 <= trainer.evaluate()["eval_agreement"] <= 1
    report = distillation_report(trainer, baseline=model_for("single_label", 3))
    assert "The teacher is no single model" in report.to_markdown()
    trainer.create_model_card()
    assert "the answers in the column `said` of the data set" in (tmp_path / "README.md").read_text()
    assert isinstance(trainer, DistillationTrainer)


def test_in_an_ensemble_and_as_a_route(tmp_path):
    first, second = (model_for("single_label", layers) for layers in (2, 3))
    rows = [{**row, "route": number % 2} for number, row in enumerate(answered("single_label", first))]
    for theirs, ours in (
        (EnsembleTeacher([first, second]), EnsembleTeacher([ColumnTeacher("said"), second])),
        (
            RoutedTeacher({0: first, 1: second}, "route"),
            RoutedTeacher({0: ColumnTeacher("said"), 1: second}, "route"),
        ),
    ):
        online = trained(tmp_path, "single_label", theirs, rows=rows)
        check_equal_training(online, trained(tmp_path, "single_label", ours, rows=rows), "single_label")


def test_a_route_answers_its_own_rows_alone(tmp_path):
    first, second = (model_for("single_label", layers) for layers in (2, 3))
    rows = answered("single_label", first)
    holed = [{**row, "route": "ab"[number % 2]} for number, row in enumerate(rows)]
    nobody = [{**row, "said": None} if row["route"] == "b" else row for row in holed]
    online = trained(tmp_path, "single_label", RoutedTeacher({"a": first, "b": second}, "route"), rows=holed)
    routed = RoutedTeacher({"a": ColumnTeacher("said"), "b": second}, "route")
    check_equal_training(online, trained(tmp_path, "single_label", routed, rows=nobody), "single_label")


def test_routes_that_share_some_answers(tmp_path):
    both = EnsembleTeacher([ColumnTeacher("said"), ColumnTeacher("other")])
    with pytest.raises(UnsupportedModelError, match="the routes 'a' and 'b' have some of their answers from one"):
        trainer_for(tmp_path, teacher=RoutedTeacher({"a": ColumnTeacher("said"), "b": both}, "route"))


@pytest.mark.parametrize(
    "said, options, error, message",
    [
        ([None] * 8, {}, ConfigurationError, "does not hold equally many numbers in each row"),
        ([[1.0, 2.0, 3.0], [1.0, 2.0]] * 4, {}, ConfigurationError, "does not hold equally many numbers in each row"),
        ([["a", "b", "c"]] * 8, {}, ConfigurationError, "does not hold equally many numbers in each row"),
        (
            [[0.0, math.nan, 1.0]] * 8,
            {},
            ConfigurationError,
            r"holds \[0.0, nan, 1.0\] in a row, and numbers that are",
        ),
        ([1.0] * 8, {}, ConfigurationError, r"has the shape \[\], and a SingleLabelHead asks for a list of numbers"),
        ([[[1.0], [2.0], [3.0]]] * 8, {}, ConfigurationError, r"has the shape \[3, 1\], and a SingleLabelHead asks"),
        ([[0.0, 1.0]] * 8, {}, ClassMismatchError, r"holds 2 numbers in a row, and there are 3 classes"),
        (
            [[3.0, 1.0, 0.0]] * 8,
            {"holds": "probabilities"},
            ConfigurationError,
            r"holds \[3.0, 1.0, 0.0\] in a row, and probabilities lie between 0 and 1, and add up to 1. Divide votes",
        ),
        ([[0.5, 0.2, 0.3]] * 8, {}, ConfigurationError, r"add up to 1, such as \[0.5, 0.2, 0.3\]. As logits they"),
    ],
)
def test_a_column_that_does_not_hold_what_was_said(said, options, error, message, tmp_path):
    rows = [{**row, "said": each} for row, each in zip(rows_of("single_label"), said, strict=True)]
    trainer = trainer_for(tmp_path, teacher=ColumnTeacher("said", **options), rows=rows)
    with pytest.raises(error, match=message):
        trainer.train()


@pytest.mark.parametrize("size", [1, 4, 8])
@pytest.mark.parametrize(
    "task, said, what",
    [
        ("single_label", [[0.5, 0.2, 0.3], [1.0, 0.0, 0.0]], r"numbers between 0 and 1 that add up to 1, such as \["),
        ("single_label", [[0.33, 0.33, 0.33], [0.02, 0.96, 0.03]], "numbers between 0 and 1 that add up to 1, such"),
        ("single_label", [[3, 1, 0], [0, 0, 4]], r"whole numbers, as of votes, such as \["),
        ("multi_label", [[0.5, 0.9, 0.3], [0.1, 0.0, 0.0]], r"numbers between 0 and 1, such as \["),
    ],
)
def test_what_is_no_logits(task, said, what, size, tmp_path):
    """In batches of any size; and none of these rows is refused where others show that they are logits."""
    rows = [{**row, "said": each} for row, each in zip(rows_of(task), said * 4, strict=True)]
    options = {"per_device_train_batch_size": size, "max_steps": 8}
    with pytest.raises(ConfigurationError, match=f"the column 'said' holds {what}"):
        trainer_for(tmp_path, task, teacher=ColumnTeacher("said"), rows=rows, **options).train()
    others = [{**row, "said": [-0.5, 1.5, 0.0]} if number == 3 else row for number, row in enumerate(rows)]
    trainer_for(tmp_path, task, teacher=ColumnTeacher("said"), rows=others, **options).train()


def test_one_number_is_no_embedding(tmp_path):
    """Not even where there are as many rows in a batch as numbers in a vector."""
    rows = [{**row, "said": 1.0} for row in rows_of("embeddings") * 2]
    trainer = trainer_for(
        tmp_path, "embeddings", teacher=ColumnTeacher("said"), rows=rows, alpha=0.0, per_device_train_batch_size=16
    )
    with pytest.raises(ConfigurationError, match=r"has the shape \[\], and a EmbeddingHead asks for a list"):
        trainer.train()


def test_of_many_labels_probabilities_need_no_sum(tmp_path):
    rows = [{**row, "said": [0.5, 0.2, 1.3]} for row in rows_of("multi_label")]
    trainer = trainer_for(tmp_path, "multi_label", teacher=ColumnTeacher("said", holds="probabilities"), rows=rows)
    with pytest.raises(ConfigurationError, match=r"and probabilities lie between 0 and 1\. Divide"):
        trainer.train()


def test_rows_without_labels_where_labels_have_told_the_problem(tmp_path):
    """As of a model, and of a cache of it."""
    model, task = model_for("open_multi_label", 2), "open_multi_label"
    rows = answered(task, model)
    cache_teacher(model, rows_of(task), tmp_path / "cache", dtype="float32", data_collator=PaddingCollator())
    unlabelled = [{name: value for name, value in row.items() if name != "labels"} for row in rows]
    losses = []
    for teacher in (model_for(task, 2), ColumnTeacher("said"), tmp_path / "cache"):
        trainer = trainer_for(tmp_path, task, teacher=teacher, rows=rows, alpha=0.0, eval_dataset=unlabelled)
        trainer.train()
        losses.append(trainer.evaluate()["eval_loss"])
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_a_data_set_without_the_column(tmp_path):
    trainer = trainer_for(tmp_path, teacher=ColumnTeacher("said"), alpha=alpha_of("single_label"))
    with pytest.raises(MissingInputError, match="has the answers of the column 'said', and the batch has only"):
        trainer.train()


def test_students_that_say_more_than_one_thing_of_a_row(tmp_path):
    with pytest.raises(
        UnsupportedModelError, match="one answer for each row, and a TokenClassificationHead says more"
    ):
        trainer_for(tmp_path, "tokens", teacher=ColumnTeacher("said"))
    with pytest.raises(UnsupportedModelError, match="a CausalLMHead says more"):
        ColumnTeacher("said").meet(None, CausalLMHead())


def test_terms_that_compare_layers(tmp_path):
    objective = Objective({"states": (1.0, HiddenStateTerm("uniform"))})
    with pytest.raises((MissingTeacherError, UnsupportedModelError), match="ColumnTeacher"):
        trainer_for(tmp_path, teacher=ColumnTeacher("said"), rows=rows_for("single_label"), objective=objective)


def test_there_is_nothing_to_cache(tmp_path):
    with pytest.raises(UnsupportedModelError, match="stand in the data set already, in 'said'"):
        cache_teacher(ColumnTeacher("said"), rows_of("single_label"), tmp_path / "cache")


def test_arguments_that_are_none(tmp_path):
    with pytest.raises(ConfigurationError, match=r"`holds` must be one of \['logits', 'probabilities'\], got 'votes'"):
        ColumnTeacher("said", holds="votes")
    for task, head in (("regression", "RegressionHead"), ("embeddings", "EmbeddingHead")):
        with pytest.raises(ConfigurationError, match=f"'said' is said to hold probabilities, and a {head} has none"):
            trainer_for(tmp_path, task, teacher=ColumnTeacher("said", holds="probabilities"), alpha=0.0)
    with pytest.raises(ConfigurationError, match="has not met a head by which rows are read"):
        ColumnTeacher("said").signals({"input_ids": torch.zeros(1, 2), "teacher_said": torch.zeros(1, 3)})

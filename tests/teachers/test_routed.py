"""A teacher for each row, chosen by one of its columns."""

import copy
from pathlib import Path

import pytest
import torch
from datasets import ClassLabel, Dataset
from transformers import DataCollatorWithPadding

from hf_distill import (
    EnsembleTeacher,
    OnlineTeacher,
    ProcessingTeacher,
    RoutedTeacher,
    cache_teacher,
    check_invariances,
    head_of,
    preflight_report,
)
from hf_distill.errors import (
    CacheMismatchError,
    ConfigurationError,
    MissingInputError,
    MissingTeacherError,
    UnsupportedModelError,
)
from tests.gradients import ALPHA, TEMPERATURE, GradientRecorder, relative_difference
from tests.processes import run_two_processes
from tests.reference import reference_gradients
from tests.test_comparable import ORDER, named, with_classes
from tests.tiny_models import PaddingCollator, model_for, rows_for, word_tokenizer
from tests.tiny_trainers import trainer_for


LANGUAGES = ("fr", "de", "fr", "fr", "de", "fr", "de", "de")
"""Of the rows; no micro-batch of 2 but the first holds both in this order."""
NUMBERS = {"fr": 7, "de": 3}
SPLITS = {
    "one batch of 8": {},
    "4 batches of 2, padded further": {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "extra_padding": 5,
    },
}
TASKS = ("single_label", "multi_label", "regression", "tokens", "answers", "masked", "causal", "seq2seq")


def routed_rows(task, numbered=False):
    return [
        {**row, "language": NUMBERS[language] if numbered else language}
        for row, language in zip(rows_for(task), LANGUAGES, strict=True)
    ]


def routed(task, numbered=False, double=True):
    models = {"de": model_for(task, 2), "fr": model_for(task, 3)}
    return RoutedTeacher(
        {
            NUMBERS[language] if numbered else language: model.double() if double else model
            for language, model in models.items()
        },
        column="language",
    )


def ready(task):
    """A routed teacher apart from any Trainer."""
    models = {"de": model_for(task, 2), "fr": model_for(task, 3)}
    return RoutedTeacher({key: OnlineTeacher(model, head_of(model)) for key, model in models.items()}, "language")


class OfTheRow:
    """The model for the row that is asked next."""

    def __init__(self, task):
        self.models = {"de": model_for(task, 2).double().eval(), "fr": model_for(task, 3).double().eval()}
        self.config, self.languages = self.models["de"].config, iter(LANGUAGES)

    def __call__(self, **inputs):
        return self.models[next(self.languages)](**inputs)


def gradients_of(output_dir, task, teacher, rows, extra_padding=0, **changes):
    recorder = GradientRecorder()
    options = {"learning_rate": 0.0, "max_steps": 1, "per_device_train_batch_size": 8, **changes}
    trainer_for(
        output_dir, task, student=model_for(task, 1).double(), teacher=teacher, rows=rows, callbacks=[recorder],
        data_collator=PaddingCollator(extra_padding), **options,
    ).train()  # fmt: skip
    return recorder.steps[0]


@pytest.mark.parametrize(
    "task, numbered",
    [*((task, False) for task in TASKS), pytest.param("single_label", True, id="single_label-integers")],
)
def test_the_gradient_is_that_of_each_rows_own_teacher(tmp_path, task, numbered):
    student, rows = model_for(task, 1).double(), rows_for(task)
    _, expected = reference_gradients(student, OfTheRow(task), task, rows, TEMPERATURE, ALPHA)
    for split in SPLITS.values():
        found = gradients_of(tmp_path, task, routed(task, numbered), routed_rows(task, numbered), **split)
        assert relative_difference(found, {name: expected[name] for name in found}) < 1e-6


def test_the_column_decides(tmp_path):
    rows = routed_rows("single_label")
    swapped = [{**row, "language": {"fr": "de", "de": "fr"}[row["language"]]} for row in rows]
    found, other = (gradients_of(tmp_path, "single_label", routed("single_label"), each) for each in (rows, swapped))
    assert relative_difference(other, found) > 1e-3


def test_a_teacher_sees_its_own_rows_alone_and_they_come_back_in_order(tmp_path):
    teacher, seen = ready("single_label"), {}
    for route, member in zip(teacher.routes, teacher.members, strict=True):
        member.model.register_forward_pre_hook(
            lambda module, args, kwargs, route=route: seen.setdefault(route, []).append(kwargs["input_ids"]),
            with_kwargs=True,
        )
    batch = PaddingCollator()(rows_for("single_label"))
    logits = teacher.signals({**batch, "language": list(LANGUAGES)}).logits
    for route, (ids,) in seen.items():
        assert torch.equal(ids, batch["input_ids"][[language == route for language in LANGUAGES]])
    for index, language in enumerate(LANGUAGES):
        row = {name: value[index : index + 1] for name, value in batch.items()}
        expected = teacher.members[teacher.routes.index(language)].signals(row).logits
        torch.testing.assert_close(logits[index : index + 1], expected)
    seen.clear()
    teacher.signals({**batch, "language": ["fr"] * 8})
    assert seen.keys() == {"fr"}


def test_classes_of_each_teacher_are_aligned(tmp_path):
    found = []
    for order, names in ((None, None), (ORDER, None), (ORDER, "wrong")):
        german, french = (named(model_for("single_label", layers)).double() for layers in (2, 3))
        if order:
            french = with_classes(french, order) if names is None else named(with_classes(french, order))
        teacher, recorder = RoutedTeacher({"de": german, "fr": french}, "language"), GradientRecorder()
        trainer_for(
            tmp_path, student=named(model_for("single_label", 1)).double(), teacher=teacher, learning_rate=0.0,
            rows=routed_rows("single_label"), callbacks=[recorder], max_steps=1, per_device_train_batch_size=8,
        ).train()  # fmt: skip
        found.append(recorder.steps[0])
    assert relative_difference(found[1], found[0]) < 1e-12
    assert relative_difference(found[2], found[0]) > 1e-3


def test_the_student_learns_and_the_teachers_do_not_move(tmp_path):
    """With a collator of Transformers, which cannot batch the strings, and a data set that remembers them."""
    rows = Dataset.from_list(routed_rows("single_label"))
    teacher, tokenizer = routed("single_label", double=False), word_tokenizer("[PAD]", "a")
    tokenizer.pad_token = "[PAD]"
    trainer = trainer_for(
        tmp_path, teacher=teacher, rows=rows, eval_dataset=rows, max_steps=30, report_agreement=True,
        data_collator=DataCollatorWithPadding(tokenizer), alpha=0,
    )  # fmt: skip
    before = [copy.deepcopy(member.model.state_dict()) for member in teacher.members]
    report = check_invariances(trainer)
    assert all(check.held for check in report.checks), str(report)
    soft = trainer.evaluate()["eval_loss/soft"]
    trainer.train()
    metrics = trainer.evaluate()
    assert metrics["eval_loss/soft"] < 0.3 * soft
    assert 0 <= metrics["eval_agreement"] <= 1
    for member, weights in zip(teacher.members, before, strict=True):
        assert all(torch.equal(weights[name], value) for name, value in member.model.state_dict().items())
    memory = preflight_report(trainer).memory
    assert memory.teacher == sum(4 * p.numel() for member in teacher.members for p in member.model.parameters())
    with pytest.raises(KeyError):
        trainer._student_inputs(next(iter(trainer.get_train_dataloader())))["language"]


def test_the_numbers_of_a_class_label_are_routes(tmp_path):
    names = ClassLabel(names=["de", "fr"])
    rows = Dataset.from_list(routed_rows("single_label")).cast_column("language", names)
    models = {"de": model_for("single_label", 2), "fr": model_for("single_label", 3)}
    by_name = trainer_for(tmp_path, teacher=RoutedTeacher(models, "language"), rows=rows)
    with pytest.raises(MissingTeacherError, match=r"has language=0, and there are teachers for \['de', 'fr'\]"):
        by_name.train()
    by_number = RoutedTeacher({names.str2int(name): model for name, model in models.items()}, "language")
    trainer = trainer_for(tmp_path, teacher=by_number, rows=rows)
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["teacher_language"].tolist() == batch["language"].tolist()
    trainer.train()


def test_a_route_may_be_an_ensemble_and_a_member_of_one(tmp_path):
    teacher = ready("single_label")
    german, french = teacher.members
    batch = {**PaddingCollator()(rows_for("single_label")), "language": list(LANGUAGES)}
    both = EnsembleTeacher([german, french], average="logits")
    inside = RoutedTeacher({"de": both, "fr": french}, "language").signals(batch).logits
    is_german = torch.tensor([language == "de" for language in LANGUAGES])[:, None]
    torch.testing.assert_close(
        inside, torch.where(is_german, both.signals(batch).logits, french.signals(batch).logits)
    )
    rows = routed_rows("single_label")
    trainer = trainer_for(tmp_path, teacher=[teacher, model_for("single_label", 2)], rows=rows)
    assert "teacher_language" in next(iter(trainer.get_train_dataloader()))
    trainer.train()


def test_a_row_without_a_teacher(tmp_path):
    rows = routed_rows("single_label")
    rows[1]["language"] = "it"
    message = r"a row has language='it', and there are teachers for \['de', 'fr'\] alone\. Add one for it to"
    with pytest.raises(MissingTeacherError, match=message):
        trainer_for(tmp_path, teacher=routed("single_label"), rows=rows).train()
    with pytest.raises(MissingTeacherError, match=message):
        ready("single_label").signals({"input_ids": torch.zeros(1, 4), "language": ["it"]})


def test_a_data_set_without_the_column(tmp_path):
    trainer = trainer_for(tmp_path, teacher=routed("single_label", double=False), rows=rows_for("single_label"))
    with pytest.raises(
        MissingInputError, match=r"by the column 'language', and the batch has only \['attention_mask'"
    ):
        trainer.train()


@pytest.mark.parametrize("routes", [{}, {"de": "a", 1: "b"}, {1.5: "a"}, {True: "a"}])
def test_routes_that_are_none(routes):
    with pytest.raises(
        ConfigurationError, match=r"has the routes \[.*\], and they must be one or more, all strings or"
    ):
        RoutedTeacher(routes, "language")


@pytest.mark.slow
@pytest.mark.distributed
def test_sharded_teachers_are_asked_on_all_processes(tmp_path):
    """Each process has rows of one route alone, and gives its share of the weights to the other."""
    run_two_processes(Path(__file__).with_name("sharded_routes.py"), tmp_path)
    teacher = ready("causal")
    batch = PaddingCollator()(rows_for("causal"))
    for rank, route in enumerate(("de", "fr")):
        expected = teacher.signals({**batch, "language": [route] * 8}).logits
        torch.testing.assert_close(torch.load(tmp_path / f"rank{rank}.pt", weights_only=True), expected)


def caches_of_routes(folder, task):
    """A cache of each route's own rows, and the models."""
    models = {"de": model_for(task, 2), "fr": model_for(task, 3)}
    for language, model in models.items():
        rows = [row for row in routed_rows(task) if row["language"] == language]
        rows = [{name: value for name, value in row.items() if name != "language"} for row in rows]
        cache_teacher(model, rows, folder / language, data_collator=PaddingCollator(), dtype="float32", batch_size=3)
    return {language: folder / language for language in models}, models


def single_gradients(output_dir, task, teacher, **changes):
    recorder = GradientRecorder()
    options = {"learning_rate": 0.0, "max_steps": 1, "per_device_train_batch_size": 8, "callbacks": [recorder]}
    trainer_for(output_dir, task, teacher=teacher, rows=routed_rows(task), **{**options, **changes}).train()
    return recorder.steps[0]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["single_label", "masked", "seq2seq"])
def test_a_route_is_a_cache_of_its_own_rows(tmp_path, task):
    paths, models = caches_of_routes(tmp_path, task)
    expected = single_gradients(tmp_path, task, RoutedTeacher(models, "language"))
    for routes in (paths, {"de": models["de"], "fr": paths["fr"]}):
        for size in (8, 2):
            options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size}
            found = single_gradients(tmp_path, task, RoutedTeacher(routes, "language"), **options)
            assert relative_difference(found, expected) < 1e-5


@pytest.mark.parametrize("task", ["single_label", "causal"])
def test_two_routes_share_a_cache(tmp_path, task):
    model = model_for(task, 2)
    rows = [{name: value for name, value in row.items() if name != "language"} for row in routed_rows(task)]
    cache = tmp_path / "cache"
    cache_teacher(model, rows, cache, data_collator=PaddingCollator(), dtype="float32", batch_size=3)
    found, expected = (
        single_gradients(tmp_path, task, RoutedTeacher({"de": each, "fr": each}, "language"))
        for each in (cache, model)
    )
    assert relative_difference(found, expected) < 1e-5


def test_a_route_is_an_ensemble_of_a_cache_and_a_model(tmp_path):
    paths, models = caches_of_routes(tmp_path, "single_label")
    found, expected = (
        single_gradients(
            tmp_path,
            "single_label",
            RoutedTeacher({"de": EnsembleTeacher([de, model_for("single_label", 4)]), "fr": models["fr"]}, "language"),
        )
        for de in (paths["de"], models["de"])
    )
    assert relative_difference(found, expected) < 1e-5


def test_a_row_of_a_route_that_its_cache_lacks(tmp_path):
    paths, _ = caches_of_routes(tmp_path, "single_label")
    swapped = RoutedTeacher({"de": paths["fr"], "fr": paths["de"]}, "language")
    with pytest.raises(CacheMismatchError, match="which is none of the 4 in the cache"):
        single_gradients(tmp_path, "single_label", swapped)


def test_a_route_that_is_a_cache_read_by_a_processing_class(tmp_path):
    paths, models = caches_of_routes(tmp_path, "single_label")
    reads = ProcessingTeacher(paths["de"], word_tokenizer("a"), "text")
    with pytest.raises(UnsupportedModelError, match="the route 'de' is a cache that is read through a `ProcessingTea"):
        single_gradients(tmp_path, "single_label", RoutedTeacher({"de": reads, "fr": models["fr"]}, "language"))

"""Layers that a teacher has had before train a student as those that it has now."""

import pytest
import torch

from hf_distill import CachedTeacher, HiddenStateTerm, Objective, RelationTerm, SoftTargetTerm, head_of
from hf_distill.errors import CacheMismatchError, ConfigurationError, UnsupportedModelError
from hf_distill.functional import rkd_angle, rkd_distance
from hf_distill.terms import ContrastiveTerm, RowRelationTerm
from tests.gradients import GradientRecorder, relative_difference
from tests.teachers.test_cached import cached, rows_of
from tests.tiny_models import PaddingCollator, model_for, rows_for
from tests.tiny_trainers import loss_logs, trainer_for


def states_and(**terms):
    soft = {"soft": (0.5, SoftTargetTerm())}
    return Objective({**{name: (1.0, term) for name, term in terms.items()}, **soft})


def two_sides():
    sides = {side: HiddenStateTerm([(1, 1), (1, -1)], side=side) for side in ("encoder", "decoder")}
    return states_and(**sides)


def of_rows(pooled):
    relations = {each.__name__: RowRelationTerm(distance=each, pooled=pooled) for each in (rkd_distance, rkd_angle)}
    return states_and(**relations, hidden=HiddenStateTerm([(1, 2)], pooled=pooled), far=ContrastiveTerm(pooled=pooled))


CASES = {
    "every token": ("single_label", states_and(hidden=HiddenStateTerm([(0, 0), (1, 3)])), {"layers": [0, 3]}),
    "blended": ("tokens", states_and(hidden=HiddenStateTerm("learned")), {"layers": [1, 2, 3]}),
    "blended rows": (
        "single_label",
        states_and(hidden=HiddenStateTerm("learned", pooled="mean")),
        {"layers": [1, 2, 3], "pooled": "mean"},
    ),
    "first": ("single_label", of_rows("first"), {"layers": [2, -1], "pooled": "first"}),
    "last": ("causal", of_rows("last"), {"layers": [2, -1], "pooled": "last"}),
    "mean": ("single_label", of_rows("mean"), {"layers": [2, -1], "pooled": "mean"}),
    "rows of every token": ("single_label", of_rows("mean"), {"layers": [2, -1]}),
    "masked positions": ("masked", states_and(hidden=HiddenStateTerm([(1, 3)])), {"layers": [3]}),
    "likeliest classes": ("causal", states_and(hidden=HiddenStateTerm([(1, 3)])), {"layers": [3], "top_k": 10**6}),
    "two sides": ("seq2seq", two_sides(), {"layers": {"encoder": [1, -1], "decoder": [-1, 1]}}),
    "images": ("images", states_and(hidden=HiddenStateTerm([(1, 3)])), {"layers": [3]}),
    "rows of images": ("images", of_rows("mean"), {"layers": [2, 3], "pooled": "mean"}),
}


def step(output_dir, task, teacher, objective, **changes):
    """The gradients and the log of a step over 8 rows, of which the second half is another micro-batch."""
    recorder = GradientRecorder()
    options = {"max_steps": 1, "learning_rate": 0.0, "gradient_accumulation_steps": 2, "callbacks": [recorder]}
    trainer = trainer_for(
        output_dir, task, teacher=teacher, objective=objective, rows=rows_of(task), **{**options, **changes}
    )
    trainer.train()
    (gradients,), (log,) = recorder.steps, loss_logs(trainer)
    return gradients, log


@pytest.mark.parametrize("case", CASES)
def test_cached_is_online(case, tmp_path):
    task, objective, options = CASES[case]
    teacher = model_for(task, 3)
    cached(tmp_path / "cache", task, teacher, **options)
    (online, log), (offline, other) = (step(tmp_path, task, each, objective) for each in (teacher, tmp_path / "cache"))
    assert len(online) == len(offline) and relative_difference(offline, online) < 1e-5
    losses = {name: value for name, value in log.items() if "loss" in name}
    assert len(losses) > 2
    assert {name: other[name] for name in losses} == pytest.approx(losses, rel=1e-5)


def test_states_are_those_of_each_row_alone(tmp_path):
    teacher, rows = model_for("single_label", 3), rows_of("single_label")
    found = cached(tmp_path / "cache", teacher=teacher, layers=[1, -1])
    found.meet(None, head_of(teacher))
    term = HiddenStateTerm([(1, 1), (1, -1)]).bound("hidden", found.anatomy, found.anatomy)
    assert not found.read_features(term.requires.teacher_features)
    order = [6, 1, 1, 4]
    batch = PaddingCollator(extra=3)([rows[index] for index in order])
    features = found.signals(batch).features
    assert len(features) == 2
    for row, index in enumerate(order):
        with torch.no_grad():
            alone = teacher(torch.tensor([rows[index]["input_ids"]]), output_hidden_states=True).hidden_states
        length = len(rows[index]["input_ids"])
        for feature, states in features.items():
            torch.testing.assert_close(states[row, :length], alone[feature.layer][0])
            assert not states[row, length:].any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "uint8"])
def test_how_far_off_each_precision_is(dtype, tmp_path):
    teacher, rows = model_for("single_label", 2), rows_of("single_label")
    batch = PaddingCollator()(rows)
    found = cached(tmp_path / "cache", teacher=teacher, dtype=dtype, layers=[2], pooled="first")
    found.meet(None, head_of(teacher))
    term = RowRelationTerm(pooled="first").bound("rows", found.anatomy, found.anatomy)
    found.read_features(term.requires.teacher_features)
    (states,) = found.signals(batch).features.values()
    with torch.no_grad():
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        exact = teacher(**inputs, output_hidden_states=True).hidden_states[2][:, 0]
    largest = {"float16": exact.abs().amax(1) * 2**-11, "bfloat16": exact.abs().amax(1) * 2**-8}
    largest["uint8"] = (exact.amax(1) - exact.amin(1)) / 255 / 2
    error = (states[:, 0] - exact).abs().amax(1)
    assert (error <= 1.01 * largest[dtype] + 1e-6).all() and error.max() > 0


def test_layers_that_no_term_reads_cost_nothing(tmp_path):
    plain, with_layers = (
        cached(tmp_path / str(layers), layers=layers).collator_for(PaddingCollator()) for layers in (None, [0, 1, 2])
    )
    for each in (plain, with_layers):
        each.teacher.meet(None, head_of(model_for("single_label", 1)))
    batches = [each(rows_of("single_label")) for each in (plain, with_layers)]
    assert len(batches[0]) == len(batches[1])


def test_layers_come_from_workers_and_are_evaluated(tmp_path):
    cached(tmp_path / "cache", layers=[3], teacher=model_for("single_label", 3))
    objective = states_and(hidden=HiddenStateTerm([(1, 3)]))
    options = {"eval_dataset": rows_of("single_label"), "rows": rows_of("single_label"), "dataloader_num_workers": 2}
    trainer = trainer_for(tmp_path, teacher=tmp_path / "cache", objective=objective, **options)
    trainer.train()
    assert trainer.evaluate()["eval_loss/hidden"] > 0


def test_what_is_not_kept_is_refused_by_name(tmp_path):
    rows = cached(tmp_path / "rows", layers=[2], pooled="mean").cache.path
    tokens = cached(tmp_path / "tokens", layers=[2]).cache.path
    relation = {"values": RelationTerm(num_relation_heads=2)}
    for path, terms, message in (
        (
            tokens,
            {"a": HiddenStateTerm([(1, 1), (1, 2)])},
            r"\{'layers': \[2\]\}, every token, and a reads the layers 1:",
        ),
        (tokens, relation, r"values reads keys, queries, values, which no cache holds: take a term of hidden states"),
        (
            rows,
            {"b": HiddenStateTerm([(1, 2)])},
            r"one vector a row \('mean'\), and b does not compare rows by their 'm",
        ),
        (
            rows,
            {"c": HiddenStateTerm([(1, 2)], pooled="first")},
            "cache every token with `pooled=None`; or pass the m",
        ),
    ):
        with pytest.raises(UnsupportedModelError, match=message):
            trainer_for(tmp_path, teacher=path, objective=states_and(**terms))
    with pytest.raises(CacheMismatchError, match=r"features\.pooled: 'mean' and None"):
        cached(rows, layers=[2])
    assert CachedTeacher(rows).cache.manifest.features["layers"] == {"": [2]}


def test_layers_that_do_not_exist_are_refused(tmp_path):
    for options, message in (
        ({"layers": [3]}, r"`layers` has \[3\], and the teacher has the layers 0 to 2"),
        ({"layers": []}, r"`layers` has \[\]"),
        (
            {"layers": {"decoder": [1]}},
            r"has the stacks \[''\], and layers=\{'decoder': \[1\]\} does not say of which",
        ),
        ({"pooled": "mean"}, "`pooled='mean'` says which vector of a row is kept of `layers`"),
        ({"layers": [1], "pooled": "max"}, "`pooled` must be None, 'first', 'last' or 'mean', got 'max'"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            cached(tmp_path / "cache", **options)
    with pytest.raises(ConfigurationError, match=r"the stacks \['decoder', 'encoder'\]"):
        cached(tmp_path / "cache", "seq2seq", layers=[1])


def test_layers_that_belong_to_no_row_are_refused(tmp_path):
    with pytest.raises(UnsupportedModelError, match="so it is not known which belong to which row"):
        cached(tmp_path / "cache", "choices", layers=[1])
    rows = [{**row, "teacher_input_ids": [7, 8]} for row in rows_for("single_label")]
    with pytest.raises(ConfigurationError, match="has inputs of the teacher's own"):
        cached(tmp_path / "own", rows=rows, layers=[1])

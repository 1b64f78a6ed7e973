"""What a report says in words."""

import dataclasses

import pytest

from hf_distill.report import wording
from hf_distill.report.results import Comparison, Estimate, LeaveOneOut, MetricResult
from tests.report.tiny_reports import tiny_report


def with_metric(name, higher, student, gain, p_value):
    models = {"teacher": Estimate(0.8), "baseline": Estimate(student - gain), "student": Estimate(student)}
    metric = MetricResult(higher, models, Estimate(student / 0.8), Comparison(Estimate(gain), p_value))
    return dataclasses.replace(tiny_report(), metrics={name: metric})


@pytest.mark.parametrize(
    ("higher", "gain", "p_value", "words"),
    [
        (True, 0.05, 0.01, "Distilling helped: +5.0 points (p = 0.01) accuracy"),
        (True, -0.05, 0.01, "Distilling hurt: -5.0 points"),
        (True, 0.05, 0.3, "Whether distilling helped cannot be told from chance"),
        (False, -0.05, 0.01, "Distilling helped: -5.0 points"),
    ],
)
def test_the_verdict(higher, gain, p_value, words):
    verdict = wording.verdict(with_metric("accuracy", higher, 0.76, gain, p_value))
    assert words in verdict
    assert "76.0 % accuracy where its teacher has 80.0 %, which is 95.0 % of it" in verdict


@pytest.mark.parametrize(
    ("teacher_ms", "student_ms", "speed"),
    [(30.0, 10.0, "3.0 times faster"), (10.0, 10.1, "as fast"), (10.0, 25.0, "2.5 times slower")],
)
def test_what_is_saved(teacher_ms, student_ms, speed):
    report = tiny_report()
    for name, milliseconds in (("teacher", teacher_ms), ("student", student_ms)):
        model = report.models[name]
        timings = tuple(dataclasses.replace(each, p50_ms=milliseconds) for each in model.cost.timings)
        changed = dataclasses.replace(model, cost=dataclasses.replace(model.cost, timings=timings))
        report = dataclasses.replace(report, models={**report.models, name: changed})
    verdict = wording.verdict(report)
    assert f"times smaller and {speed} in batches of 2" in verdict


def test_a_report_without_metrics():
    assert "no metric" in wording.verdict(dataclasses.replace(tiny_report(), metrics={}))


def test_what_was_left_out():
    assert wording.left_out_table(tiny_report())[1] == [] and wording.left_out_note(tiny_report()) == ""
    trials = LeaveOneOut(50, "accuracy", True, 0.8, {"labels": 0.75, "soft": 0.82, "hidden": 0.8})
    accuracy = MetricResult(True, {"student": Estimate(0.8, 0.79, 0.81)})
    report = dataclasses.replace(tiny_report(), left_out=trials, metrics={"accuracy": accuracy})
    head, rows = wording.left_out_table(report)
    assert head[1] == "accuracy after 50 steps"
    assert rows == [
        ["nothing", "80.0 %", "–", "–"],
        ["labels", "75.0 %", "-5.0", "helped"],
        ["soft", "82.0 %", "+2.0", "hurt"],
        ["hidden", "80.0 %", "+0.0", "cannot be told"],
    ]
    accuracy = MetricResult(True, {"student": Estimate(0.8, 0.77, 0.83)})
    unsure = wording.left_out_table(dataclasses.replace(report, metrics={"accuracy": accuracy}))[1]
    assert [row[-1] for row in unsure] == ["–", "helped", "cannot be told", "cannot be told"]
    note = wording.left_out_note(report)
    assert "one training of 50 steps, where the student itself was trained for 4, all with the same seed" in note
    assert note in report.to_markdown() and note in report.to_html()
    lower = LeaveOneOut(50, "perplexity", False, 8.0, {"labels": 9.5})
    rows = wording.left_out_table(dataclasses.replace(tiny_report(), left_out=lower))[1]
    assert rows[1] == ["labels", "9.5", "+1.5", "helped"]


def test_programs():
    head, rows = wording.export_table(tiny_report())
    assert head[0] == "runs in" and len(head) == len(rows[0])
    assert rows[0] == ["ONNX Runtime", "2 MB", "0", "75.0 %", "0.4", "1", "2.50×"]
    assert rows[1][:3] == ["ONNX Runtime, 8-bit weights", "2 MB", "0.5"]


def test_numbers():
    assert wording.number(0.1234, "accuracy") == "12.3 %"
    assert wording.number(float("nan")) == wording.number(None) == "–"
    assert wording.interval(Estimate(12.3456, 11, 13)) == "12.3 (11 to 13)"
    assert wording.interval(Estimate(0.5, 0.4, 0.6), "agreement") == "50.0 % (40.0 to 60.0 %)"
    assert (wording.size(66_900_000), wording.count(66_955_010)) == ("66.9 MB", "67 M")
    assert wording.points(-0.031) == "-3.1"


def test_tables_have_a_cell_for_each_column():
    report = tiny_report()
    tables = (wording.metric_table, wording.likeness_table, wording.cost_table, wording.timing_table)
    for head, rows in [table(report) for table in (*tables, wording.term_table, wording.class_table)]:
        assert rows and all(len(row) == len(head) for row in rows)

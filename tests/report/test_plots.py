"""Plots show the numbers of the report."""

import dataclasses
import sys

import pytest

from hf_distill.report.plots import figures
from tests.report.tiny_reports import tiny_report


def lines(name, report=None):
    return [line for axes in figures(report or tiny_report())[name][1].axes for line in axes.lines]


def test_which_plots_there_are():
    assert list(figures(tiny_report())) == ["metrics", "classes", "reliability", "losses", "evaluations", "timings"]
    bare = dataclasses.replace(tiny_report(), metrics={}, models={}, curves={}, classes=())
    assert figures(bare) == {}


def test_the_losses_are_those_of_the_log():
    report = tiny_report()
    drawn = {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in lines("losses")}
    assert set(drawn) == {"loss", "loss/labels", "loss/soft"}
    assert all(drawn[name] == list(report.curves[name]) for name in drawn)


def test_the_diagram_is_that_of_the_bins():
    bins = tiny_report().models["student"].calibration.bins
    student = next(line for line in lines("reliability") if line.get_label() == "distilled student")
    assert list(zip(*student.get_data(), strict=True)) == [(each.confidence, each.accuracy) for each in bins]


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install hf_distill\[examples\]"):
        tiny_report().to_html()

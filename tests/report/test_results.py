"""A report goes to JSON and back, and into files."""

import dataclasses
import json

from hf_distill import DistillationReport
from hf_distill.report.results import Estimate
from tests.report.tiny_reports import tiny_report


def test_json_and_back():
    report = tiny_report()
    assert DistillationReport.from_json(report.to_json()).to_json() == report.to_json()
    assert DistillationReport.from_json(report.to_json()).models == report.models


def test_numbers_that_are_not_finite():
    metric = dataclasses.replace(tiny_report().metrics["accuracy"], retention=Estimate(float("inf")))
    report = dataclasses.replace(tiny_report(), metrics={"accuracy": metric})
    written = report.to_json()
    assert json.loads(written)["metrics"]["accuracy"]["retention"]["value"] is None
    value = DistillationReport.from_json(written).metrics["accuracy"].retention.value
    assert value != value


def test_files(tmp_path):
    page = tiny_report().save(tmp_path / "new" / "folder")
    assert page.read_text() == tiny_report().to_html()
    names = {path.name for path in page.parent.iterdir()}
    assert {"report.json", "report.md", "report.html", "reliability.png", "reliability.svg", "timings.png"} <= names
    assert (page.parent / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert DistillationReport.from_json((page.parent / "report.json").read_text()).num_rows == 8

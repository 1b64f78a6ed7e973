"""A finished job has a report and a card, also where the report is all that was missing."""

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file

from hf_distill.jobs import reporting
from hf_distill.jobs.distilling import distil
from hf_distill.jobs.evidence import Evidence
from hf_distill.report import DistillationReport
from tests.jobs.test_distilling import STUDENT, TASK, arguments, data_of, teacher  # noqa: F401  # a fixture
from tests.tiny_jobs import rows_of


def job(teacher, tmp_path, **options):  # noqa: F811
    return distil(teacher, STUDENT, data_of(rows_of(TASK)), arguments(tmp_path), Evidence(tmp_path / "out"), **options)


@pytest.mark.slow
def test_a_report_that_is_missing_is_made_of_what_was_saved(teacher, tmp_path):  # noqa: F811
    job(teacher, tmp_path, with_baseline=True)
    folder = tmp_path / "out" / "report"
    first = DistillationReport.from_json((folder / "report.json").read_text())
    weights = load_file(tmp_path / "out" / "model.safetensors")
    shutil.rmtree(folder)
    job(teacher, tmp_path, with_baseline=True, resume=True)
    again = DistillationReport.from_json((folder / "report.json").read_text())
    assert first.models.keys() == again.models.keys() == {"teacher", "student", "baseline"}
    assert first.metrics == again.metrics and first.imitation == again.imitation
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(weights[name], after[name]) for name in weights)


@pytest.mark.slow
def test_without_matplotlib_it_has_no_page(teacher, tmp_path, monkeypatch, caplog):  # noqa: F811
    logging.getLogger("transformers").propagate = True
    monkeypatch.setattr(reporting, "find_spec", lambda name: None)
    job(teacher, tmp_path)
    folder = tmp_path / "out" / "report"
    assert sorted(path.name for path in folder.iterdir()) == ["report.json", "report.md"]
    assert json.loads((folder / "report.json").read_text())["num_rows"] == len(rows_of(TASK))
    assert "Matplotlib is not installed" in caplog.text

import logging
import sys

import pytest
from transformers import AutoTokenizer

from hf_distill.jobs import exporting
from hf_distill.jobs.data import job_data
from hf_distill.jobs.evidence import Evidence
from hf_distill.jobs.exporting import export, programs_of
from tests.tiny_jobs import put_teacher, rows_of


TASK = "text-classification"

# Of torch's own pytree, which Transformers' exporters use.
pytestmark = pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning", "ignore:.*LeafSpec:FutureWarning")


@pytest.mark.slow
def test_is_tried_on_rows_of_the_evaluation_data(tmp_path, capsys):
    put_teacher(tmp_path / "model", "text-classification")
    data = job_data("text-classification", None, rows_of("text-classification", 6))
    capsys.readouterr()
    made = export(str(tmp_path / "model"), data, tmp_path / "out", num_rows=4, batch_size=2, format="torch")
    assert made.max_difference <= 1e-4
    assert "experimental" not in "".join(capsys.readouterr()) and logging.root.manager.disable == logging.NOTSET
    AutoTokenizer.from_pretrained(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_int8_onnx(tmp_path):
    pytest.importorskip("onnxruntime")
    put_teacher(tmp_path / "model", "text-classification")
    data = job_data("text-classification", None, rows_of("text-classification", 6))
    made = export(str(tmp_path / "model"), data, tmp_path / "out", num_rows=4, batch_size=2, int8=True)
    assert made.agreement is not None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_every_program_is_made_once_and_kept(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    put_teacher(tmp_path / "model", TASK)
    data = job_data(TASK, None, rows_of(TASK, 6))
    first = programs_of(str(tmp_path / "model"), data, tmp_path / "out", Evidence(tmp_path), batch_size=3)
    assert first.missing == ()
    assert [(each.path.name, each.int8) for each in first.made] == [
        ("onnx", False),
        ("onnx-int8", True),
        ("torch", False),
    ]
    assert all(each.max_difference <= 1e-4 for each in first.made if not each.int8)
    assert all(each.batch_ms > 0 and each.model_batch_ms > 0 and each.path.is_dir() for each in first.made)
    monkeypatch.setattr(exporting, "export", lambda *args, **options: pytest.fail("exported twice"))
    assert programs_of(str(tmp_path / "model"), data, tmp_path / "out", Evidence(tmp_path), batch_size=3) == first


@pytest.mark.slow
def test_a_library_that_is_missing_is_named_and_tried_again(tmp_path, monkeypatch):
    put_teacher(tmp_path / "model", TASK)
    data = job_data(TASK, None, rows_of(TASK, 6))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = programs_of(str(tmp_path / "model"), data, tmp_path / "out", Evidence(tmp_path), batch_size=3)
    assert [each.path.name for each in found.made] == ["torch"]
    assert [sentence.split(":")[0] for sentence in found.missing] == [
        "The student was not exported as onnx",
        "The student was not exported as onnx-int8",
    ]
    assert "onnxruntime" in found.missing[0]
    assert list(Evidence(tmp_path).found) == ["export torch"]

import pytest
from transformers import AutoTokenizer

from hf_distill.jobs.data import job_data
from hf_distill.jobs.exporting import export
from tests.tiny_jobs import put_teacher, rows_of


# Of torch's own pytree, which Transformers' exporters use.
pytestmark = pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning", "ignore:.*LeafSpec:FutureWarning")


def test_is_tried_on_rows_of_the_evaluation_data(tmp_path):
    put_teacher(tmp_path / "model", "text-classification")
    data = job_data("text-classification", None, rows_of("text-classification", 6))
    made = export(str(tmp_path / "model"), data, tmp_path / "out", num_rows=4, batch_size=2, format="torch")
    assert made.max_difference <= 1e-4
    AutoTokenizer.from_pretrained(tmp_path / "out")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_int8_onnx(tmp_path):
    pytest.importorskip("onnxruntime")
    put_teacher(tmp_path / "model", "text-classification")
    data = job_data("text-classification", None, rows_of("text-classification", 6))
    made = export(str(tmp_path / "model"), data, tmp_path / "out", num_rows=4, batch_size=2, int8=True)
    assert made.agreement is not None

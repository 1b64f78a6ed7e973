"""Exported programs answer as their models do, on rows of other lengths and numbers than they were traced with."""

from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader

from hf_distill import export, export_model, measured_export
from hf_distill.errors import ConfigurationError, ExportMismatchError
from tests.tiny_models import PaddingCollator, model_for, rows_for


# Of torch's own pytree, which Transformers' exporters use.
pytestmark = pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning", "ignore:.*LeafSpec:FutureWarning")


def batches_for(head, num_rows=3):
    return list(DataLoader(rows_for(head), batch_size=num_rows, collate_fn=PaddingCollator()))


@pytest.mark.parametrize(
    "head",
    [
        "single_label",
        pytest.param("tokens", marks=pytest.mark.slow),
        pytest.param("answers", marks=pytest.mark.slow),
        pytest.param("masked", marks=pytest.mark.slow),
        pytest.param("causal", marks=pytest.mark.slow),
    ],
)
def test_onnx_answers_as_the_model(tmp_path, head):
    from transformers.exporters import ExportedModel

    model, batches = model_for(head, 2).train(), batches_for(head)
    exported = export_model(model, batches, tmp_path / "onnx")
    assert model.training
    assert exported.num_rows == 8 and exported.max_difference <= 1e-4 and exported.speedup > 0
    assert exported.num_bytes == sum(file.stat().st_size for file in (tmp_path / "onnx").iterdir())
    program = ExportedModel.from_pretrained(tmp_path / "onnx")
    names = ("input_ids", "attention_mask")
    batch = {name: value for name, value in batches_for(head, 5)[0].items() if name in names}
    with torch.no_grad():
        own, other = model.eval()(**batch), program(**batch)
    for name, value in own.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(other[name], value, atol=1e-4, rtol=0)


def test_a_torch_program_answers_as_the_model(tmp_path):
    exported = export_model(
        model_for("single_label", 2), batches_for("single_label"), tmp_path / "program", format="torch"
    )
    assert (tmp_path / "program" / "model.pt2").is_file()
    assert exported.max_difference <= 1e-6 and exported.agreement == 1.0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_int8_is_smaller_and_says_how_often_it_agrees(tmp_path):
    model, batches = model_for("single_label", 2), batches_for("single_label")
    small = export_model(model, batches, tmp_path / "int8", int8=True)
    assert small.int8 and small.max_difference > 0.0
    assert small.agreement is not None and 0.5 <= small.agreement <= 1.0
    whole = export_model(model, batches, tmp_path / "float")
    assert small.num_bytes < whole.num_bytes


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("options", [{}, {"int8": True}, {"format": "torch"}])
def test_a_program_that_was_written_before_is_measured_again(tmp_path, options):
    model, batches = model_for("single_label", 2), batches_for("single_label")
    made = export_model(model, batches, tmp_path / "program", **options)
    (tmp_path / "program" / "tokenizer.json").write_text("beside it")
    again = measured_export(model.train(), batches, tmp_path / "program")
    times = {"speedup": made.speedup, "batch_ms": made.batch_ms, "model_batch_ms": made.model_batch_ms}
    assert replace(again, **times) == made and again.batch_ms > 0 and model.training
    other = measured_export(model_for("single_label", 3), batches, tmp_path / "program")
    assert other.max_difference > 10 * made.max_difference + 1e-3


def test_measures_no_folder_without_a_program(tmp_path):
    model, batches = model_for("single_label", 2), batches_for("single_label")
    with pytest.raises(ConfigurationError, match=r"holds no export: it has no export\.json\. Write one"):
        measured_export(model, batches, tmp_path)
    with pytest.raises(ConfigurationError, match="there is nothing to export with"):
        measured_export(model, [], tmp_path)


def test_a_program_that_answers_otherwise_leaves_nothing(tmp_path, monkeypatch):
    model, loaded = model_for("single_label", 1), export._loaded

    def loaded_beside_another_model(*args):
        with torch.no_grad():
            model.classifier.bias += 0.25
        return loaded(*args)

    monkeypatch.setattr(export, "_loaded", loaded_beside_another_model)
    with pytest.raises(ExportMismatchError, match=r"differ from the model's by 2\.50e-01 .* 1e-04 is allowed"):
        export_model(model, batches_for("single_label"), tmp_path / "program", format="torch")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_earlier_export_is_replaced_and_nothing_else(tmp_path):
    model, batches = model_for("single_label", 1), batches_for("single_label")
    for _ in range(2):
        export_model(model, batches, tmp_path / "program", format="torch")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(ConfigurationError, match="thesis holds something else than an export"):
        export_model(model, batches, tmp_path / "thesis", format="torch")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_what_is_refused(tmp_path):
    model, batches = model_for("single_label", 1), batches_for("single_label")
    with pytest.raises(ConfigurationError, match="there is nothing to export with"):
        export_model(model, [], tmp_path / "x")
    with pytest.raises(ConfigurationError, match="there is nothing to export with"):
        export_model(model, [{"labels": torch.zeros(2)}], tmp_path / "x")
    with pytest.raises(ConfigurationError, match="the first batch has 1 row"):
        export_model(model, batches_for("single_label", 1), tmp_path / "x")
    with pytest.raises(ConfigurationError, match="`format` must be 'onnx' or 'torch', got 'tflite'"):
        export_model(model, batches, tmp_path / "x", format="tflite")
    with pytest.raises(ConfigurationError, match="quantises for ONNX Runtime"):
        export_model(model, batches, tmp_path / "x", format="torch", int8=True)

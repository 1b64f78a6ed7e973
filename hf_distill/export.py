"""Students as programs of ONNX or `torch.export`, compared with the models that they were made of."""

import inspect
import statistics
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils.generic import find_labels

from hf_distill.errors import ConfigurationError, ExportMismatchError
from hf_distill.stopwatch import seconds_of


Format = Literal["onnx", "torch"]

MANIFEST = "export.json"
"""The file by which Transformers knows an export."""

TOLERANCE = 1e-4
"""What a program's answers may differ by, if it is one of the model in float32."""

FILES = ("*.onnx", "*.onnx.data", "*.pt2", "config.json", "generation_config.json", MANIFEST)
"""Those of a program. A tokenizer or a processor may lie beside them."""

NO_ROWS = (
    "there is nothing to export with: `batches` is empty, or its first batch has no input that the model's forward "
    "takes. Pass batches as a data loader gives them, `[collator(rows)]` for one."
)

MIN_TIMED_SECONDS = 0.2
"""How long each side of a comparison of speed runs at least."""


@dataclass(frozen=True)
class Export:
    """A program on disk, and how it compares with the model it was made of.

    Attributes:
        path: its folder, which `transformers.exporters.ExportedModel.from_pretrained` loads.
        format: `"onnx"` or `"torch"`.
        int8: whether its weights are 8-bit integers.
        num_rows: rows that both answered.
        max_difference: the largest absolute difference in any float output, at real tokens.
        agreement: the share of positions at which both have the same largest logit; None where there are no logits.
        num_bytes: the size of the folder.
        speedup: the model's seconds over the program's, on the same batches, in turns; the median of the ratios.
        batch_ms: the program's milliseconds a batch, the median of the turns.
        model_batch_ms: likewise, the model's.
    """

    path: Path
    format: Format
    int8: bool
    num_rows: int
    max_difference: float
    agreement: float | None
    num_bytes: int
    speedup: float
    batch_ms: float
    model_batch_ms: float


def export_model(
    model: PreTrainedModel,
    batches: Iterable[Mapping[str, Any]],
    path: str | Path,
    *,
    format: Format = "onnx",
    int8: bool = False,
    tolerance: float | None = TOLERANCE,
) -> Export:
    """Write the model as a program, load it back, and compare the two on real rows.

    The exporting is Transformers' own, with rows and tokens of any number. The program is written aside and takes its
    place only when it has passed, so that a folder that exists holds a program that is right.

    Args:
        model: a model without adapters on the CPU.
        batches: batches as a data loader gives them; what the model's `forward` does not take, and labels, are left
            out. The first is the example that the program is traced with, and needs two rows at least.
        path: the folder to write; an earlier export in it is replaced.
        format: `"onnx"` for ONNX Runtime and others, `"torch"` for `torch.export`.
        int8: store weights as 8-bit integers and quantise activations as they come (ONNX Runtime's dynamic
            quantisation). Answers change, so `tolerance` is not applied: look at `agreement`.
        tolerance: the largest difference that is allowed, 1e-4 in float32. None allows any.

    Raises:
        ExportMismatchError: if the program's answers differ by more.
        ConfigurationError: if there are no batches, the first has fewer than two rows, `path` holds something else
            than an export, int8 is asked of `torch.export`, or Transformers is too old to export.
        ImportError: by Transformers, naming what to install (`pip install 'hf_distill[export]'`).
    """
    rows = [_inputs(model, batch) for batch in batches]
    path = Path(path)
    _check(rows, path, format, int8)
    mode, num_threads = model.training, torch.get_num_threads()
    model.eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as aside:
            folder = Path(aside) / "export"
            _exported(model, rows[0], format, int8).save_pretrained(folder)
            measured = _measured(model, rows, folder, format, int8, num_threads)
            if tolerance is not None and not int8 and not measured.max_difference <= tolerance:
                raise ExportMismatchError(
                    f"the {format} program's answers differ from the model's by {measured.max_difference:.2e} on "
                    f"these rows, and {tolerance:.0e} is allowed. Export in float32 (`model.float()`), or pass the "
                    "difference that you accept as `tolerance=`."
                )
            if path.exists():
                path.rename(Path(aside) / "earlier")  # in one step, and gone with the rest
            folder.rename(path)
    finally:
        model.train(mode)
    return replace(measured, path=path)


def measured_export(model: PreTrainedModel, batches: Iterable[Mapping[str, Any]], path: str | Path) -> Export:
    """A program that was written before, compared with the model on real rows.

    However large the difference is, it is told and not refused.

    Args:
        model: that it was made of, without adapters on the CPU.
        batches: as for [`export_model`].
        path: its folder.

    Raises:
        ConfigurationError: if the folder holds no export, or there are no batches.
        ImportError: naming what to install, if what runs the program is missing.
    """
    rows = [_inputs(model, batch) for batch in batches]
    path = Path(path)
    if not rows or not rows[0]:
        raise ConfigurationError(NO_ROWS)
    if not (path / MANIFEST).is_file():
        raise ConfigurationError(f"{path} holds no export: it has no {MANIFEST}. Write one by `export_model`.")
    int8 = any(map(_has_int8_weights, path.glob("*.onnx")))
    format: Format = "onnx" if list(path.glob("*.onnx")) else "torch"
    mode = model.training
    model.eval()
    try:
        return _measured(model, rows, path, format, int8, torch.get_num_threads())
    finally:
        model.train(mode)


def _measured(
    model: PreTrainedModel, rows: list[dict[str, Tensor]], path: Path, format: Format, int8: bool, num_threads: int
) -> Export:
    program = _loaded(path, num_threads)
    difference, agreement = _compared(model, program, rows)
    num_rows = sum(len(next(iter(row.values()))) for row in rows)
    num_bytes = sum(file.stat().st_size for pattern in FILES for file in path.glob(pattern))
    return Export(path, format, int8, num_rows, difference, agreement, num_bytes, *_times(model, program, rows))


def _has_int8_weights(path: Path) -> bool:
    onnx = import_module("onnx")
    kinds = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    return any(weight.data_type in kinds for weight in onnx.load(path, load_external_data=False).graph.initializer)


def _inputs(model: PreTrainedModel, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of the batch that the model's forward takes, without labels."""
    taken = inspect.signature(model.forward).parameters
    labels = find_labels(type(model))
    return {
        name: value.to(model.device)
        for name, value in batch.items()
        if name in taken and name not in labels and isinstance(value, Tensor)
    }


def _check(rows: list[dict[str, Tensor]], path: Path, format: str, int8: bool) -> None:
    if format not in ("onnx", "torch"):
        raise ConfigurationError(f"`format` must be 'onnx' or 'torch', got {format!r}.")
    if int8 and format != "onnx":
        raise ConfigurationError("`int8=True` quantises for ONNX Runtime. Pass `format='onnx'`.")
    if not rows or not rows[0]:
        raise ConfigurationError(NO_ROWS)
    num_rows = len(next(iter(rows[0].values())))
    if num_rows < 2:
        raise ConfigurationError(
            f"the first batch has {num_rows} row, and torch.export takes a size of 1 for a constant. Give it two or "
            "more rows."
        )
    if path.exists() and (not path.is_dir() or (any(path.iterdir()) and not (path / MANIFEST).exists())):
        raise ConfigurationError(
            f"{path} holds something else than an export, which would be lost. Pass a new folder as `path`."
        )


def _exported(model: PreTrainedModel, example: dict[str, Tensor], format: Format, int8: bool) -> Any:
    exporters = _exporters()
    auto = torch.export.Dim.AUTO
    # The axes of tokens, or of samples of sound, are the second of two; pictures and spectrograms have more.
    shapes = {name: {0: auto, 1: auto} if value.ndim == 2 else {0: auto} for name, value in example.items()}
    options: dict[str, Any] = {"dynamic": True, "dynamic_shapes": shapes}
    if format == "torch":
        return exporters.DynamoExporter().export(model, example, exporters.DynamoConfig(**options))
    if int8:
        options["quantizer"] = exporters.OnnxRuntimeQuantizer(exporters.OnnxRuntimeDynamicConfig())
    return exporters.OnnxExporter().export(model, example, exporters.OnnxConfig(**options))


def _exporters() -> Any:
    try:
        return import_module("transformers.exporters")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"Transformers {transformers.__version__} has no exporters. Install 5.23 or a later one."
        ) from error


def _loaded(folder: Path, num_threads: int) -> Any:
    """The program from disk, on as many threads as PyTorch uses, so that their times compare."""
    options = {}
    if list(folder.glob("*.onnx")):
        options["session_options"] = import_module("onnxruntime").SessionOptions()
        options["session_options"].intra_op_num_threads = num_threads
    return _exporters().ExportedModel.from_pretrained(folder, **options)


@torch.no_grad()
def _compared(model: PreTrainedModel, program: Any, rows: list[dict[str, Tensor]]) -> tuple[float, float | None]:
    """The largest difference of a float output at a real token, and how often the largest logit is the same."""
    difference, same, num_positions = 0.0, 0, 0
    for inputs in rows:
        own, exported = model(**inputs), program(**inputs)
        for name, value in own.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                counts = _real(value, inputs)
                gaps = (value.float() - exported[name].to(value.device).float()).abs()[counts]
                difference = max(difference, torch.nan_to_num(gaps, nan=torch.inf).max().item())
                if name == "logits" and value.ndim > 1:
                    chosen = value.argmax(-1) == exported[name].to(value.device).argmax(-1)
                    same, num_positions = same + int(chosen[counts].sum()), num_positions + int(chosen[counts].numel())
    return difference, same / num_positions if num_positions else None


def _real(value: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """Which leading positions of an output are real: all, or real tokens where the output has a place for each."""
    mask = inputs.get("decoder_attention_mask", inputs.get("attention_mask"))
    if mask is not None and mask.ndim == 2 and value.shape[:2] == mask.shape:
        return mask.bool()
    return torch.ones(len(value), dtype=torch.bool, device=value.device)


@torch.no_grad()
def _times(model: PreTrainedModel, program: Any, rows: list[dict[str, Tensor]]) -> tuple[float, float, float]:
    """`speedup`, `batch_ms` and `model_batch_ms` of `Export`, by turns over all batches."""
    turns: list[tuple[float, float]] = []
    while sum(map(sum, turns)) < 2 * MIN_TIMED_SECONDS or len(turns) < 5:
        own, exported = (
            sum(seconds_of(partial(callee, **inputs), model.device) for inputs in rows) for callee in (model, program)
        )
        turns.append((own, exported))
    of_model, of_program = (1e3 * statistics.median(side) / len(rows) for side in zip(*turns, strict=True))
    return statistics.median(own / exported for own, exported in turns), of_program, of_model

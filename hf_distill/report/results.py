"""A report as data: plain numbers and words, which go to JSON and back."""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_distill.rehearsal import TermSize
from hf_distill.whole_files import write_whole


@dataclass(frozen=True)
class Estimate:
    """A number, and the interval in which a bootstrap over rows finds it."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Comparison:
    """One metric of two models on the same rows."""

    difference: Estimate
    """The student's value less the other's."""
    p_value: float | None
    """Of a paired test by random swaps of the two models' answers: how often chance alone differs as much."""


@dataclass(frozen=True)
class MetricResult:
    """One metric of the task, of every model."""

    higher_is_better: bool
    models: Mapping[str, Estimate]
    retention: Estimate | None = None
    """The student's share of what the teacher reaches: student / teacher, or teacher / student where lower is
    better."""
    over_baseline: Comparison | None = None
    """The student beside the student that learned from the labels alone."""
    from_teacher: Comparison | None = None


@dataclass(frozen=True)
class Imitation:
    """How near a model is to the teacher."""

    agreement: Estimate | None = None
    """Share of positions at which both choose the same class."""
    kl: Estimate | None = None
    """KL(teacher ‖ model) per position, in nats, at temperature 1."""
    distance: Estimate | None = None
    """Root of the mean squared difference of the outputs, where these are no distribution."""


@dataclass(frozen=True)
class CalibrationBin:
    """Answers of about the same confidence."""

    confidence: float
    accuracy: float
    share: float


@dataclass(frozen=True)
class Calibration:
    """Whether a model is as often right as it says."""

    error: Estimate
    """The expected calibration error: the mean of |accuracy − confidence| over the bins, weighed by their share."""
    bins: tuple[CalibrationBin, ...]


@dataclass(frozen=True)
class Timing:
    """How long one forward pass takes."""

    batch_size: int
    length: int | None
    """Tokens of a row; None where rows are no text."""
    p50_ms: float
    p95_ms: float
    rows_per_second: float


@dataclass(frozen=True)
class Cost:
    """What a model costs to keep and to run."""

    parameters: int
    weights_bytes: int
    """What the file of its weights takes on disk."""
    flops_per_row: float | None = None
    """Of one forward pass of one row, a multiplication and an addition counted as two."""
    peak_memory_bytes: int | None = None
    """Weights, and what one forward pass of the largest timed batch holds at most beside them."""
    timings: tuple[Timing, ...] = ()


@dataclass(frozen=True)
class ModelResult:
    """One of the models that are compared."""

    class_name: str
    source: str | None
    """Its id on the Hub, if it has one. Paths are left out."""
    cost: Cost | None = None
    calibration: Calibration | None = None


@dataclass(frozen=True)
class ClassResult:
    """One class of the task."""

    name: str
    support: int
    """Labels that name it."""
    f1: Mapping[str, float]


@dataclass(frozen=True)
class Example:
    """A row on which the models differ."""

    row: int
    kind: str
    text: str
    label: str
    answers: Mapping[str, str]


@dataclass(frozen=True)
class ExportResult:
    """The student as a program, beside the student in PyTorch."""

    name: str
    """What it runs in."""
    num_bytes: int
    """What its folder takes."""
    num_rows: int
    """Rows that both answered."""
    max_difference: float
    """The largest in any output at a real token."""
    agreement: float | None
    """Share of positions at which both choose the same class."""
    batch_ms: float
    """Milliseconds of a batch of these rows, the median."""
    model_batch_ms: float
    """Likewise, in PyTorch."""
    speedup: float
    """The median of the ratios, in turns."""


@dataclass(frozen=True)
class LeaveOneOut:
    """Short trainings of the same student with all terms and without each of them: does it help?"""

    num_steps: int
    metric: str
    higher_is_better: bool
    all_terms: float
    """The score with all terms."""
    without: Mapping[str, float]
    """Term → the score without it."""


@dataclass(frozen=True)
class DistillationReport:
    """Teacher, student, and the student that learned from the labels alone, side by side on the same rows.

    The models are called "teacher", "student" and "baseline".
    """

    task: str
    """The head's name."""
    num_rows: int
    confidence: float
    """Of the intervals."""
    num_resamples: int
    models: Mapping[str, ModelResult]
    metrics: Mapping[str, MetricResult]
    """The first one is the one that matters most."""
    imitation: Mapping[str, Imitation]
    """Of student and baseline."""
    classes: tuple[ClassResult, ...] = ()
    examples: tuple[Example, ...] = ()
    curves: Mapping[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)
    """What was logged in training, by step: the losses, and each metric of an evaluation."""
    terms: Mapping[str, TermSize] = field(default_factory=dict)
    """How much each term pulls on the student as it is now, and whether in the direction of the labels."""
    left_out: LeaveOneOut | None = None
    exports: tuple[ExportResult, ...] = ()
    """The student as programs."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """How the student was trained, and with what it was measured."""
    notes: tuple[str, ...] = ()
    """What was not measured, and why."""

    def to_json(self) -> str:
        """All of it as JSON; numbers that are not finite are null."""
        return json.dumps(_without_nan(dataclasses.asdict(self)), indent=2, ensure_ascii=False, allow_nan=False)

    def to_markdown(self, level: int = 1) -> str:
        """The report for a model card, its first heading of that level."""
        from hf_distill.report.markdown import to_markdown

        return to_markdown(self, level)

    def to_html(self) -> str:
        """The report as one self-contained page, whose plots need Matplotlib."""
        from hf_distill.report.page import to_html

        return to_html(self)

    def save(self, folder: str | Path) -> Path:
        """Write `report.json`, `report.md`, `report.html`, and the plots as PNG and SVG; return the page's path."""
        from hf_distill.report.plots import figures

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "report.json", self.to_json())
        write_whole(folder / "report.md", self.to_markdown())
        for name, (_, figure) in figures(self).items():
            figure.savefig(folder / f"{name}.png", dpi=200, transparent=False, facecolor="white")
            figure.savefig(folder / f"{name}.svg")
        page = folder / "report.html"
        write_whole(page, self.to_html())
        return page

    @classmethod
    def from_json(cls, text: str) -> "DistillationReport":
        """The report that `to_json` wrote."""
        report: DistillationReport = _restored(cls, json.loads(text))
        return report


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _restored(kind: Any, value: Any) -> Any:
    """`value` out of JSON as `kind`: dataclasses, mappings, tuples and what may be None, nested in any way."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _restored(arguments[0], value)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _restored(hints[name], inner) for name, inner in value.items()})  # type: ignore[operator]
    if origin is tuple:
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_restored(one, inner) for one, inner in zip(kinds, value, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        return {name: _restored(arguments[1], inner) for name, inner in value.items()}
    return math.nan if value is None and kind is float else value

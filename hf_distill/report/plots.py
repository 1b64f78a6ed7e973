"""The plots of a report, drawn by Matplotlib, as figures that go to PNG, to SVG and into the page."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hf_distill.report.results import DistillationReport
from hf_distill.report.wording import NAMES, SHARES, title


COLORS = {"teacher": "#7a5195", "baseline": "#bc7a00", "student": "#00798c"}
"""Told apart by people who see no red or green, and by shape and order where there is no colour."""
INK, FAINT = "#101418", "#9aa3ab"
"""Text and grid, which the page replaces by its own."""
CURVES = (INK, "#d1495b", "#3f8f4f", "#3d7ab8", "#b5651d", "#8a6fbf")
"""Of terms, which are no models."""
MARKERS = {"teacher": "s", "baseline": "^", "student": "o"}
STYLE: Any = {
    "font.size": 9,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "hf_distill",
    "savefig.transparent": True,
}
SIZE = (4.6, 2.9)
MAX_CLASSES = 20
"""Of which a plot shows gains and losses."""


def figures(report: DistillationReport) -> dict[str, tuple[str, Any]]:
    """Name of the plot → what it shows in a sentence, and its figure; those for which there are numbers.

    Raises:
        ImportError: if Matplotlib is missing.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need Matplotlib. Install it with `pip install hf_distill[examples]`.") from error
    drawn = {}
    with matplotlib.rc_context(STYLE):
        for name, (caption, draw) in PLOTS.items():
            figure = Figure(figsize=SIZE, layout="constrained")
            if draw(figure, report):
                drawn[name] = caption, figure
    return drawn


def _metrics(figure: Any, report: DistillationReport) -> bool:
    """A row of points with their intervals for each metric, each on its own axis."""
    if not report.metrics:
        return False
    figure.set_size_inches(SIZE[0], 0.5 + 0.85 * len(report.metrics))
    for axes, (name, metric) in zip(
        np.atleast_1d(figure.subplots(len(report.metrics))), report.metrics.items(), strict=True
    ):
        scale = 100 if any(word in name for word in SHARES) else 1
        for height, (model, estimate) in enumerate(reversed(list(metric.models.items()))):
            value, low, high = estimate.value, estimate.low, estimate.high
            if low is not None and high is not None:
                axes.plot([scale * low, scale * high], [height] * 2, color=COLORS[model], linewidth=2.5, alpha=0.55)
            axes.plot(scale * value, height, MARKERS[model], color=COLORS[model], markersize=6)
        names = [NAMES[model] for model in reversed(list(metric.models))]
        axes.set(yticks=range(len(names)), yticklabels=names, ylim=(-0.6, len(names) - 0.4))
        better = "higher is better" if metric.higher_is_better else "lower is better"
        axes.set_title(f"{title(name)}{', %' if scale == 100 else ''} ({better})", fontsize=9, loc="left", color=INK)
        axes.grid(axis="y", visible=False)
    return True


def _reliability(figure: Any, report: DistillationReport) -> bool:
    axes, has_any = figure.subplots(), False
    axes.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1)
    for name, model in report.models.items():
        if model.calibration is not None:
            bins = model.calibration.bins
            style = {"color": COLORS[name], "marker": MARKERS[name], "label": NAMES[name]}
            points = [each.confidence for each in bins], [each.accuracy for each in bins]
            axes.plot(*points, **style, markersize=3, linewidth=1)
            axes.scatter(*points, s=[4 + 120 * each.share for each in bins], **{**style, "label": None}, alpha=0.5)
            has_any = True
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    if has_any:
        axes.legend(fontsize=8)
    return has_any


def _losses(figure: Any, report: DistillationReport) -> bool:
    return _curves(figure, report, lambda name: name == "loss" or name.startswith("loss/"), "loss per unit")


def _evaluations(figure: Any, report: DistillationReport) -> bool:
    return _curves(figure, report, lambda name: name.startswith("eval_loss"), "loss on the evaluation set")


def _curves(figure: Any, report: DistillationReport, chosen: Callable[[str], bool], label: str) -> bool:
    curves = {name: points for name, points in report.curves.items() if chosen(name) and len(points) > 1}
    axes = figure.subplots()
    for index, (name, points) in enumerate(curves.items()):
        steps, heights = zip(*points, strict=True)
        style = ["-", "--", ":", "-."][index % 4]
        axes.plot(steps, heights, style, color=CURVES[index % len(CURVES)], label=name, linewidth=1.6)
    values = [value for points in curves.values() for _, value in points]
    if values and min(values) > 0 and max(values) / min(values) > 30:
        axes.set_yscale("log")
    axes.set(xlabel="step", ylabel=label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if curves:
        figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    return bool(curves)


def _timings(figure: Any, report: DistillationReport) -> bool:
    axes, has_any = figure.subplots(), False
    for name, model in report.models.items():
        timings = model.cost.timings if model.cost else ()
        lengths = sorted({timing.length or 0 for timing in timings})
        for length in lengths:
            own = [timing for timing in timings if (timing.length or 0) == length]
            label = NAMES[name] + (f", {length} tokens" if length else "")
            style = "-" if length == lengths[-1] else ":"
            sizes, medians = [timing.batch_size for timing in own], [timing.p50_ms for timing in own]
            axes.plot(sizes, medians, style, color=COLORS[name], marker=MARKERS[name], markersize=4, label=label)
            axes.fill_between(sizes, medians, [timing.p95_ms for timing in own], color=COLORS[name], alpha=0.12)
            has_any = True
    if has_any:
        sizes = sorted(
            {timing.batch_size for model in report.models.values() if model.cost for timing in model.cost.timings}
        )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set(
            xlabel="batch size", ylabel="milliseconds, p50 to p95", xticks=sizes, xticklabels=[str(s) for s in sizes]
        )
        figure.set_size_inches(SIZE[0], SIZE[1] + 0.6)
        figure.legend(fontsize=7, loc="outside lower center", ncols=2)
    return has_any


def _classes(figure: Any, report: DistillationReport) -> bool:
    """The classes with the largest gains and losses beside the teacher."""
    known = [each for each in report.classes if "teacher" in each.f1 and np.isfinite(list(each.f1.values())).all()]
    known.sort(key=lambda each: each.f1["student"] - each.f1["teacher"])
    if len(known) > MAX_CLASSES:
        known = known[: MAX_CLASSES // 2] + known[-MAX_CLASSES // 2 :]
    if len(known) < 2:
        return False
    figure.set_size_inches(SIZE[0], 0.9 + 0.26 * len(known))
    axes = figure.subplots()
    for height, each in enumerate(known):
        ends = [100 * each.f1[model] for model in ("teacher", "student")]
        axes.plot(ends, [height] * 2, color=FAINT, linewidth=2)
        for model, value in each.f1.items():
            label = NAMES[model] if height == 0 else None
            axes.plot(100 * value, height, MARKERS[model], color=COLORS[model], markersize=5, label=label)
    axes.set(yticks=range(len(known)), yticklabels=[each.name[:24] for each in known], xlabel="F1, %")
    axes.set_ylim(-0.6, len(known) - 0.4)
    figure.legend(*axes.get_legend_handles_labels(), fontsize=8, loc="outside upper center", ncols=3)
    return True


PLOTS: Mapping[str, tuple[str, Callable[[Any, DistillationReport], bool]]] = {
    "metrics": ("Metrics of every model with their intervals", _metrics),
    "classes": ("F1 of each class: what the student gained and lost beside its teacher", _classes),
    "reliability": (
        "Accuracy by confidence: on the dashed line a model is as often right as it says. Large marks are many rows",
        _reliability,
    ),
    "losses": ("Losses in training, term by term, unweighted", _losses),
    "evaluations": ("Losses on the evaluation set during training", _evaluations),
    "timings": (
        "Time of a forward pass by batch size; the band reaches from the median to the 95th percentile",
        _timings,
    ),
}
"""Name → caption, and what draws it onto a figure; false if there is nothing to draw."""

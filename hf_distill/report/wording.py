"""The words and numbers of a report, for every rendering."""

import math
from collections.abc import Mapping

from hf_distill.report.results import Comparison, DistillationReport, Estimate, MetricResult


SHARES = ("accuracy", "f1", "exact_match", "agreement", "iou", "retention")
"""Metrics that are shown in percent have one of these in their names."""

NAMES = {"teacher": "teacher", "baseline": "student on labels alone", "student": "distilled student"}
"""What the models are called."""

SIGNIFICANCE = 0.05


def number(value: float | None, metric: str = "") -> str:
    """A number as it is read: percent for shares, three digits otherwise, a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{100 * value:.1f} %" if any(word in metric for word in SHARES) else f"{value:.3g}"


def interval(estimate: Estimate | None, metric: str = "") -> str:
    """The number with its interval."""
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return number(estimate.value, metric)
    low, high = number(estimate.low, metric).removesuffix(" %"), number(estimate.high, metric)
    return f"{number(estimate.value, metric)} ({low} to {high})"


def title(metric: str) -> str:
    """A metric's name as words."""
    return metric.replace("_", " ").replace("f1", "F1").replace("iou", "IoU")


def verdict(report: DistillationReport) -> str:
    """One or two sentences: did it help, what was kept, what was saved?"""
    if not report.metrics:
        return "The rows have no metric, so there is only the likeness to the teacher."
    name, metric = next(iter(report.metrics.items()))
    sentences = [_helped(name, metric)] if metric.over_baseline is not None else []
    student = metric.models["student"]
    if (teacher := metric.models.get("teacher")) is not None and metric.retention is not None:
        kept = f"{100 * metric.retention.value:.1f} %" if math.isfinite(metric.retention.value) else "an unknown share"
        sentences.append(
            f"The student reaches {number(student.value, name)} {title(name)} where its teacher has "
            f"{number(teacher.value, name)}, which is {kept} of it."
        )
    else:
        sentences.append(f"The student reaches {number(student.value, name)} {title(name)}.")
    if savings := _savings(report):
        sentences.append(savings)
    return " ".join(sentences)


def _helped(name: str, metric: MetricResult) -> str:
    comparison = metric.over_baseline
    if comparison is None or not math.isfinite(comparison.difference.value):
        return "Whether distilling helped cannot be said."
    gain = comparison.difference.value if metric.higher_is_better else -comparison.difference.value
    if comparison.p_value is not None and comparison.p_value <= SIGNIFICANCE:
        answer = "Distilling helped" if gain > 0 else "Distilling hurt"
    else:
        answer = "Whether distilling helped cannot be told from chance on these rows"
    return f"{answer}: {difference(name, comparison)} {title(name)} beside the student on labels alone."


def difference(name: str, comparison: Comparison) -> str:
    """A signed difference and its p-value; shares in percentage points."""
    value = comparison.difference.value
    if not math.isfinite(value):
        return "–"
    is_share = any(word in name for word in SHARES)
    shown = f"{100 * value:+.1f} points" if is_share else f"{value:+.3g}"
    return shown if comparison.p_value is None else f"{shown} (p = {comparison.p_value:.2g})"


def _savings(report: DistillationReport) -> str:
    costs = {name: model.cost for name, model in report.models.items() if model.cost is not None}
    if not {"teacher", "student"} <= costs.keys() or not costs["student"].weights_bytes:
        return ""
    teacher, student = costs["teacher"], costs["student"]
    parts = [times(teacher.parameters / max(student.parameters, 1), "smaller", "larger", "as large")]
    pairs = list(zip(teacher.timings, student.timings, strict=False))
    if pairs:
        slow, fast = pairs[-1]
        speed = times(slow.p50_ms / fast.p50_ms, "faster", "slower", "as fast")
        parts.append(f"{speed} in batches of {fast.batch_size}")
    return f"It is {' and '.join(parts)}."


def times(ratio: float, more: str, less: str, equal: str) -> str:
    """A ratio in words.

    Example:

        >>> [times(ratio, "faster", "slower", "as fast") for ratio in (2.5, 1.02, 0.5)]
        ['2.5 times faster', 'as fast', '2.0 times slower']
    """
    if 0.95 < ratio < 1.05:
        return equal
    return f"{ratio:.1f} times {more}" if ratio > 1 else f"{1 / ratio:.1f} times {less}"


def size(num_bytes: float | None) -> str:
    """Bytes with a unit."""
    if not num_bytes:
        return "–"
    power = min(int(math.log(max(num_bytes, 1), 1000)), 4)
    return f"{num_bytes / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def count(value: float | None) -> str:
    """A large number with a letter: 66.9 M."""
    if value is None:
        return "–"
    power = min(int(math.log(max(value, 1), 1000)), 5)
    return f"{value / 1000**power:.3g} {('', 'k', 'M', 'G', 'T', 'P')[power]}".strip()


def who_is_who(report: DistillationReport) -> dict[str, str]:
    """Each model in a few words."""
    roles = {"teacher": "", "baseline": ", trained without the teacher", "student": ", trained with the teacher"}
    words = {}
    for name, model in report.models.items():
        parameters = f", {count(model.cost.parameters)} parameters" if model.cost else ""
        words[name] = f"{model.source or model.class_name}{parameters}{roles[name]}"
    return words


Table = tuple[list[str], list[list[str]]]
"""Heads of the columns, and rows."""


def metric_table(report: DistillationReport) -> Table:
    """Every metric of every model, what is retained, and whether it is more than chance."""
    models = list(report.models)
    has_baseline = "baseline" in models
    head = ["metric", *(NAMES[name] for name in models), "retained"]
    head += ["gain by distilling"] if has_baseline else []
    rows = []
    for name, metric in report.metrics.items():
        row = [title(name), *(interval(metric.models.get(model), name) for model in models)]
        row.append(interval(metric.retention, "retention"))
        row += [difference(name, metric.over_baseline) if metric.over_baseline else "–"] if has_baseline else []
        rows.append(row)
    return head, rows


def likeness_table(report: DistillationReport) -> Table:
    """How near each student is to the teacher, and how well calibrated all are."""
    rows: list[list[str]] = []
    names = {"agreement": "agreement with the teacher", "kl": "KL to the teacher, nats", "distance": "distance, RMS"}
    for field, words in names.items():
        values = {model: getattr(each, field) for model, each in report.imitation.items()}
        if any(value is not None for value in values.values()):
            rows.append([words, *(interval(values.get(model), field) for model in report.models)])
    errors = {model: each.calibration.error for model, each in report.models.items() if each.calibration is not None}
    if errors:
        rows.append(["calibration error", *(interval(errors.get(m), "accuracy") for m in report.models)])
    return ["", *(NAMES[name] for name in report.models)], rows


def cost_table(report: DistillationReport) -> Table:
    """Parameters, size, operations, memory."""
    costs = {name: model.cost for name, model in report.models.items() if model.cost is not None}
    rows = [
        ["parameters", *(count(cost.parameters) for cost in costs.values())],
        ["weights on disk", *(size(cost.weights_bytes) for cost in costs.values())],
        ["FLOPs per row", *(count(cost.flops_per_row) for cost in costs.values())],
        ["peak memory", *(size(cost.peak_memory_bytes) for cost in costs.values())],
    ]
    return ["", *(NAMES[name] for name in costs)], rows


def timing_table(report: DistillationReport) -> Table:
    """Latency and throughput of each timed size."""
    rows = []
    for name, model in report.models.items():
        for timing in model.cost.timings if model.cost else ():
            length = "–" if timing.length is None else str(timing.length)
            speed = (
                f"{timing.rows_per_second:,.0f}" if timing.rows_per_second >= 10 else f"{timing.rows_per_second:.2g}"
            )
            rows.append(
                [NAMES[name], str(timing.batch_size), length, f"{timing.p50_ms:.3g}", f"{timing.p95_ms:.3g}", speed]
            )
    return ["model", "batch size", "tokens", "p50, ms", "p95, ms", "rows/s"], rows


def export_table(report: DistillationReport) -> Table:
    """The student as programs, beside PyTorch."""
    rows = [
        [
            each.name,
            size(each.num_bytes),
            f"{each.max_difference:.2g}",
            number(each.agreement, "agreement"),
            f"{each.batch_ms:.3g}",
            f"{each.model_batch_ms:.3g}",
            f"{each.speedup:.2f}×",
        ]
        for each in report.exports
    ]
    head = ["runs in", "on disk", "largest difference", "same choice", "ms a batch", "PyTorch, ms a batch", "speed"]
    return head, rows


def term_table(report: DistillationReport) -> Table:
    """How each term pulls."""
    rows = [
        [name, number(size.value), number(size.weight), number(size.gradient), number(size.cosine)]
        for name, size in report.terms.items()
    ]
    return ["term", "value", "weight", "weighted gradient", "cosine with the labels"], rows


def term_note(report: DistillationReport) -> str:
    """What the table of terms shows."""
    if not report.terms:
        return ""
    return (
        "On one batch, with the student as it is now. A large weighted gradient pulls hard. Its cosine is 1 where the "
        "term pulls as the labels do, 0 where it pulls across, and below 0 where it pulls against them."
    )


def left_out_table(report: DistillationReport) -> Table:
    """What the student scores without each term, after short trainings."""
    trials = report.left_out
    if trials is None:
        return [], []
    is_share = any(word in trials.metric for word in SHARES)
    chance = _half_width(report.metrics.get(trials.metric))
    rows = [["nothing", number(trials.all_terms, trials.metric), "–", "–"]]
    for name, score in trials.without.items():
        gap = score - trials.all_terms
        is_worse = gap < 0 if trials.higher_is_better else gap > 0
        words = "cannot be told" if abs(gap) <= chance else "helped" if is_worse else "hurt"
        rows.append([name, number(score, trials.metric), points(gap) if is_share else f"{gap:+.3g}", words])
    return ["left out", f"{title(trials.metric)} after {trials.num_steps} steps", "difference", "so the term"], rows


def left_out_note(report: DistillationReport) -> str:
    """How much the table of short trainings can say."""
    if report.left_out is None:
        return ""
    steps = report.settings.get("steps")
    beside = f", where the student itself was trained for {int(steps):,}" if steps else ""
    return (
        f"Each line is one training of {report.left_out.num_steps:,} steps{beside}, all with the same seed. Another "
        "seed gives other numbers, and a longer training may turn them round. A difference within the interval of a "
        "score on these rows is called one that cannot be told."
    )


def _half_width(metric: MetricResult | None) -> float:
    """How far the student's score may be off on other rows."""
    score = None if metric is None else metric.models["student"]
    return 0.0 if score is None or score.low is None or score.high is None else (score.high - score.low) / 2


def class_table(report: DistillationReport) -> Table:
    """F1 of each class, the student's gains and losses."""
    models = list(report.classes[0].f1) if report.classes else []
    rows = []
    for each in report.classes:
        row = [each.name, str(each.support), *(number(each.f1[model], "f1") for model in models)]
        for other in ("teacher", "baseline"):
            if other in each.f1:
                row.append(points(each.f1["student"] - each.f1[other]))
        rows.append(row)
    gains = [f"beside {NAMES[other]}" for other in ("teacher", "baseline") if other in models]
    return ["class", "labels", *(NAMES[model] for model in models), *gains], rows


def points(value: float) -> str:
    """A difference of shares in percentage points."""
    return f"{100 * value:+.1f}" if math.isfinite(value) else "–"


def settings_table(settings: Mapping[str, str]) -> Table:
    """How it was trained and measured."""
    return ["", ""], [[name, value] for name, value in settings.items()]

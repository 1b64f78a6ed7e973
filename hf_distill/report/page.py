"""A report as one HTML page that needs nothing else: no script, no font, no request."""

import io
import re
from collections.abc import Mapping
from html import escape
from typing import Any

from hf_distill.report import wording
from hf_distill.report.plots import COLORS, FAINT, INK, figures
from hf_distill.report.results import DistillationReport, Example
from hf_distill.report.wording import NAMES, Table


STYLE = """
:root { color-scheme: light dark; --ink: #16202a; --faint: #626c76; --paper: #ffffff; --card: #f5f7f9;
  --line: #dde3e8; --teacher: #7a5195; --baseline: #a86d00; --student: #00798c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8edf1; --faint: #8d98a3; --paper: #12171c; --card: #1b2229;
  --line: #313b45; --teacher: #bf9ad8; --baseline: #efb04a; --student: #45c2d4; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .75rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; }
.verdict { font-size: 1.15rem; border-left: 4px solid var(--student); padding: .2rem 0 .2rem .9rem; margin: 0 0 1rem; }
.small { color: var(--faint); font-size: .875rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1.25rem 0; }
.tile { background: var(--card); border-radius: .6rem; padding: .8rem .9rem; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile span { font-size: .85rem; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.5rem; margin: 0 0 1rem; padding: 0;
  font-size: .9rem; }
.legend li::before { content: ""; display: inline-block; width: .7em; height: .7em; margin-right: .5em;
  border-radius: .15em; background: var(--mark); }
.plots { margin: 1.25rem 0 0; columns: 24rem; column-gap: 1rem; }
.beside { align-items: start; display: grid; gap: 0 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.beside .plots { margin: .5rem 0 0; }
figure { margin: 0 0 1rem; padding: .75rem; background: var(--card); border-radius: .6rem; break-inside: avoid; }
figure svg { overflow: visible; display: block; width: 100%; height: auto; }
figcaption { font-size: .875rem; margin-top: .4rem; }
.scroll { overflow-x: auto; } .scroll + .scroll { margin-top: 1.5rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .45rem 0 .45rem 1.2rem; border-bottom: 1px solid var(--line);
  vertical-align: top; }
thead th { font-weight: 600; }
tbody th { font-weight: 500; }
th:first-child { text-align: left; padding-left: 0; }
td { white-space: nowrap; }
.example { border-top: 1px solid var(--line); padding: .8rem 0; break-inside: avoid; }
.example p { margin: 0 0 .4rem; overflow-wrap: anywhere; }
.kind { font-size: .8rem; font-weight: 600; color: var(--student); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .8rem; margin: 0; font-size: .9rem; }
dd { margin: 0; overflow-wrap: anywhere; }
details { margin-top: 1rem; } summary { cursor: pointer; }
@media (max-width: 40rem) {
  .narrow thead { display: none; }
  .narrow tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  .narrow th, .narrow td { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .1rem 0;
    text-align: right; white-space: nowrap; }
  .narrow th { font-weight: 700; text-align: left; white-space: normal; overflow-wrap: anywhere; }
  .narrow td::before { content: attr(data-label); color: var(--faint); text-align: left; white-space: normal; }
  .settings { grid-template-columns: 1fr; } .settings dt { font-weight: 600; }
  .example dl { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); }
}
@media print { main { max-width: none; padding: 0; } .scroll { overflow: visible; } body { font-size: 11pt; } }
"""


def to_html(report: DistillationReport) -> str:
    """The page. It is light or dark as the reader's system is, and fits a phone and a sheet of paper.

    Raises:
        ImportError: if Matplotlib, which draws the plots, is missing.
    """
    source = report.models["student"].source or report.models["student"].class_name
    plots = {name: _plot(name, *drawn) for name, drawn in figures(report).items()}
    quality = _table(wording.metric_table(report)) + _table(wording.likeness_table(report))
    cost = _table(wording.cost_table(report))
    sections = {
        "Quality": quality
        + _grid(plots, "metrics", "classes", "reliability")
        + _folded("Every class", _table(wording.class_table(report)))
        + _folded("Calibration", _bins(report)),
        "Cost": f'<div class="beside">{cost}{_grid(plots, "timings")}</div>'
        + _folded("Every timed size", _table(wording.timing_table(report))),
        "The student in other runtimes": _table(wording.export_table(report)),
        "Rows on which they differ": _examples(report),
        "Training": _grid(plots, "losses", "evaluations") + _folded("First and last values", _curves(report)),
        "How each term pulls on the student as it is now": _table(wording.term_table(report))
        + _small(wording.term_note(report)),
        "Which term helped": _table(wording.left_out_table(report)) + _small(wording.left_out_note(report)),
        "How it was trained and measured": _settings(report),
        "What was not measured": "".join(f"<p>{escape(note)}</p>" for note in report.notes),
    }
    body = "".join(f"<section><h2>{name}</h2>{content}</section>" for name, content in sections.items() if content)
    measured = (
        f"{report.num_rows:,} rows. Brackets hold {report.confidence:.0%} intervals, by a bootstrap of "
        f"{report.num_resamples:,} draws of rows; p says how often chance alone would differ as much, by a paired "
        "randomisation test."
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>Distillation report: {escape(source)}</title><style>{STYLE}</style></head><body><main>"
        f'<h1>Distillation report</h1><p class="verdict">{escape(wording.verdict(report))}</p>'
        f'{_tiles(report)}{_legend(report)}<p class="small">{measured}</p>{body}</main></body></html>\n'
    )


def _legend(report: DistillationReport) -> str:
    """Who is compared, in the colours of the plots."""
    items = [
        f'<li style="--mark: var(--{name})"><b>{escape(NAMES[name])}</b>: {escape(words)}</li>'
        for name, words in wording.who_is_who(report).items()
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _tiles(report: DistillationReport) -> str:
    """What a reader who reads nothing else should see."""
    tiles = []
    for name, metric in list(report.metrics.items())[:1]:
        tiles.append((wording.number(metric.models["student"].value, name), wording.title(name)))
        if metric.retention is not None:
            tiles.append(
                (wording.number(metric.retention.value, "retention"), f"of the teacher's {wording.title(name)}")
            )
        if metric.over_baseline is not None:
            tiles.append((wording.difference(name, metric.over_baseline).split(" (")[0], "beside labels alone"))
    costs = {name: model.cost for name, model in report.models.items()}
    teacher, student = costs.get("teacher"), costs.get("student")
    if teacher and student:
        tiles.append((f"{teacher.parameters / max(student.parameters, 1):.1f}×", "fewer parameters"))
        if teacher.timings and student.timings:
            speedup = teacher.timings[-1].p50_ms / student.timings[-1].p50_ms
            tiles.append((f"{speedup:.1f}×", f"the speed, batches of {student.timings[-1].batch_size}"))
    shown = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(words)}</span></div>' for value, words in tiles
    )
    return f'<div class="tiles">{shown}</div>'


def _table(table: Table) -> str:
    """A table, of which each row is a card of its own on a phone."""
    head, rows = table
    if not rows:
        return ""
    heads = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = []
    for first, *rest in rows:
        cells = "".join(
            f'<td data-label="{escape(label)}">{escape(cell)}</td>' for label, cell in zip(head[1:], rest, strict=True)
        )
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    body = f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="scroll" tabindex="0"><table class="narrow">{body}</table></div>'


def _plot(name: str, caption: str, figure: Any) -> str:
    return f"<figure>{inline_svg(figure, name, caption)}<figcaption>{escape(caption)}</figcaption></figure>"


def _grid(plots: Mapping[str, str], *names: str) -> str:
    """Those of the named plots that were drawn."""
    drawn = "".join(plots[name] for name in names if name in plots)
    return f'<div class="plots">{drawn}</div>' if drawn else ""


def _curves(report: DistillationReport) -> str:
    rows = [
        [name, f"{len(points)}", wording.number(points[0][1]), wording.number(points[-1][1])]
        for name, points in report.curves.items()
    ]
    return _table((["curve", "points", "first", "last"], rows))


def _bins(report: DistillationReport) -> str:
    rows = [
        [NAMES[name], f"{each.confidence:.3f}", f"{each.accuracy:.3f}", f"{100 * each.share:.1f} %"]
        for name, model in report.models.items()
        for each in (model.calibration.bins if model.calibration else ())
    ]
    return _table((["model", "confidence", "accuracy", "share of answers"], rows))


def inline_svg(figure: Any, name: str, caption: str) -> str:
    """A figure as an SVG element whose colours are those of the page, with a title for who cannot see it."""
    import matplotlib

    from hf_distill.report.plots import STYLE as PLOT_STYLE

    stream = io.StringIO()
    with matplotlib.rc_context(PLOT_STYLE):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    svg = stream.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|xlink:href="#|href="#)', rf"\g<1>{name}-", svg)  # ids are those of one page
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg))
    opening = f'<svg role="img" aria-labelledby="{name}-title"'
    svg = svg.replace("<svg", opening, 1).replace(">", f'><title id="{name}-title">{escape(caption)}</title>', 1)
    for model, color in COLORS.items():
        svg = svg.replace(color, f"var(--{model})")
    return svg.replace(INK, "var(--ink)").replace(FAINT, "var(--faint)")


def _examples(report: DistillationReport) -> str:
    examples = "".join(map(_example, report.examples))
    return f'<div class="beside">{examples}</div>' if examples else ""


def _example(example: Example) -> str:
    said = {NAMES[name]: answer for name, answer in example.answers.items()}
    if example.label:
        said = {"label": example.label, **said}
    pairs = "".join(f"<dt>{escape(name)}</dt><dd>{escape(answer)}</dd>" for name, answer in said.items())
    text = f"<p>{escape(example.text)}</p>" if example.text else ""
    kind = f'<p class="kind">{escape(example.kind)} · row {example.row}</p>'
    return f'<div class="example">{kind}{text}<dl>{pairs}</dl></div>'


def _settings(report: DistillationReport) -> str:
    pairs = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in report.settings.items())
    return f'<dl class="settings">{pairs}</dl>' if pairs else ""


def _small(words: str) -> str:
    return f'<p class="small">{escape(words)}</p>' if words else ""


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{summary}</summary>{content}</details>" if content else ""

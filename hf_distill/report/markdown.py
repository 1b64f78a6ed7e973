"""A report as Markdown, for a model card."""

from hf_distill.report import wording
from hf_distill.report.results import DistillationReport
from hf_distill.report.wording import Table


def to_markdown(report: DistillationReport, level: int = 1) -> str:
    """The report without its plots and examples.

    Args:
        level: of the first heading.
    """
    mark = "#" * level
    measured = (
        f"Measured on {report.num_rows} rows. In brackets: {report.confidence:.0%} intervals by a bootstrap of "
        f"{report.num_resamples} draws of rows; p by a paired randomisation test."
    )
    parts = [f"{mark} Distillation report", wording.verdict(report), measured]
    sections = {
        "Quality": wording.metric_table(report),
        "Likeness and calibration": wording.likeness_table(report),
        "Classes, F1": wording.class_table(report),
        "Cost": wording.cost_table(report),
        "Speed": wording.timing_table(report),
        "Exports": wording.export_table(report),
        "Terms": wording.term_table(report),
        "Which term helped": wording.left_out_table(report),
        "How": wording.settings_table(report.settings),
    }
    below = {"Terms": wording.term_note(report), "Which term helped": wording.left_out_note(report)}
    for heading, table in sections.items():
        if table[1]:
            parts += [f"{mark}# {heading}", markdown_table(table), *filter(None, [below.get(heading)])]
    if report.notes:
        parts += [f"{mark}# Notes", "\n".join(f"- {note}" for note in report.notes)]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """A table in Markdown."""
    head, rows = table
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)

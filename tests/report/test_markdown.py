"""A report as Markdown."""

from hf_distill.report.markdown import markdown_table
from tests.report.tiny_reports import tiny_report


def test_headings_and_numbers():
    text = tiny_report().to_markdown(level=3)
    assert text.startswith("### Distillation report\n") and "\n#### Quality\n" in text
    assert "student on labels alone" in text and "| macro F1 |" in text
    assert "8 rows" in text and "50 draws" in text


def test_bars_in_names():
    assert markdown_table((["a"], [["x|y"]])) == "| a |\n| --- |\n| x\\|y |"

"""The page, as text and in a browser."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from tests.report.chromium import opened
from tests.report.tiny_reports import tiny_report


VOID = {"meta", "link", "br", "img", "input"}


class Balanced(HTMLParser):
    """Fails where an element is closed that is not open; collects ids and what is asked of other machines."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.requests = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href") and not value.startswith(("#", "data:")):
                self.requests.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else():
    page = tiny_report().to_html()
    parser = Balanced()
    parser.feed(page)
    assert parser.open == [] and parser.requests == []
    assert len(parser.ids) == len(set(parser.ids))
    assert "<script" not in page and "@import" not in page and "url(http" not in page


def test_words_of_the_data_are_escaped():
    report = tiny_report()
    example = dataclasses.replace(report.examples[0], text="<script>alert(1)</script>")
    page = dataclasses.replace(report, examples=(example,)).to_html()
    assert "&lt;script&gt;alert(1)" in page and "&lt;fair&gt;" in page and "<fair>" not in page


def test_the_page_has_colours_of_light_and_dark():
    page = tiny_report().to_html()
    assert "prefers-color-scheme: dark" in page and "@media print" in page
    plots = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "var(--student)" in plots and "var(--ink)" in plots
    assert not re.search(r"#(?:7a5195|00798c|101418)", plots)


@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_in_a_browser(width, tmp_path):
    seen, console = opened(tiny_report().to_html(), tmp_path, width)
    assert console == []
    assert seen["width"] <= width and seen["outside"] == 0
    assert len(seen["plots"]) == 6
    assert all(plot["width"] > 250 and plot["height"] > 50 and plot["shapes"] > 5 for plot in seen["plots"])
    assert all(plot["title"] for plot in seen["plots"])
    assert seen["text"] > 1000 and seen["requests"] == []


def test_the_browser_sees_what_is_wrong(tmp_path):
    bad = "<div style='width:900px'>wide</div><script>console.error('broken')</script>"
    seen, console = opened(bad, tmp_path)
    assert seen["width"] >= 900 and seen["outside"] == 1
    assert any("broken" in line for line in console)

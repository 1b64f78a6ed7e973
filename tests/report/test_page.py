"""The page, as text and in a browser."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from tests.browser import DESK, PHONE, visit
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


def test_the_page_says_who_is_compared():
    page = tiny_report().to_html()
    assert "<b>student on labels alone</b>: BertForSequenceClassification, 11.2 k parameters, trained without" in page
    assert page.index("<b>teacher</b>") < page.index("<h2>Quality</h2>")


def test_the_page_has_colours_of_light_and_dark():
    page = tiny_report().to_html()
    assert "prefers-color-scheme: dark" in page and "@media print" in page
    plots = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "var(--student)" in plots and "var(--ink)" in plots
    assert not re.search(r"#(?:7a5195|00798c|101418)", plots)


PLOTS = """[...document.querySelectorAll("svg")].map((svg) => {
  const box = svg.getBoundingClientRect();
  const title = (svg.querySelector("title") || {}).textContent || "";
  return {width: box.width, height: box.height, shapes: svg.querySelectorAll("path, use").length, title};
})"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_the_page_in_a_browser(width, color_scheme, browser, tmp_path):
    page = tiny_report().save(tmp_path)
    with visit(browser, page.as_uri(), width, color_scheme=color_scheme) as seen:
        assert seen.errors == [] and seen.strangers == [] and seen.overflow == 0
        plots = seen.page.evaluate(PLOTS)
        background = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert len(plots) == 6
    assert all(plot["width"] > 250 and plot["height"] > 50 and plot["shapes"] > 5 for plot in plots)
    assert all(plot["title"] for plot in plots)
    assert (background == "rgb(255, 255, 255)") == (color_scheme == "light")

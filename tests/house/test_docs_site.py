"""The docs site builds without a warning, names every public name, and works in a browser, on a phone too."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urldefrag, urljoin

import pytest

import hf_distill
from tests.browser import DESK, PHONE, served, visit


ROOT = Path(__file__).parents[2]
if sys.version_info < (3, 11):
    pytest.skip("tomllib reads the site's configuration from Python 3.11 on", allow_module_level=True)

import tomllib  # noqa: E402


def built(folder: Path) -> tuple[Path, str]:
    """The site of a copy of the docs and the package, and what the build said."""
    for name in ("docs", "hf_distill"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "zensical.toml", folder)
    build = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    run = subprocess.run(build, cwd=folder, capture_output=True, text=True)
    said = run.stdout + run.stderr
    assert run.returncode == 0, said
    return folder / "site", said


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return built(tmp_path_factory.mktemp("docs"))


def test_builds_without_a_warning(site):
    faults = [line for line in site[1].splitlines() if line.startswith("griffe:") or "arning" in line]
    assert faults == []


def test_a_page_that_links_nowhere_fails(tmp_path):
    """The strict mode is on: what the test above trusts."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[gone](gone.md)\n")
    (tmp_path / "zensical.toml").write_text('[project]\nsite_name = "x"\n')
    build = [sys.executable, "-m", "zensical", "build", "--strict"]
    run = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode != 0 and "page does not exist" in run.stdout + run.stderr


def pages_in(nav):
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        elif isinstance(entry, list):
            yield from pages_in(entry)
        else:
            yield from pages_in(entry.values())


def test_every_page_is_in_the_navigation():
    nav = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    docs = ROOT / "docs"
    assert sorted(pages_in(nav)) == sorted(page.relative_to(docs).as_posix() for page in docs.rglob("*.md"))


def test_every_public_name_is_in_the_reference(site):
    pages = [page.read_text() for page in (site[0] / "reference").rglob("*.html")]
    known = {anchor.rpartition(".")[2] for page in pages for anchor in re.findall(r'id="(hf_distill\.[\w.]+)"', page)}
    rooms = {name for name in hf_distill.__all__ if isinstance(getattr(hf_distill, name), type(sys))}
    assert set(hf_distill.__all__) - rooms - {"__version__"} <= known


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_every_page_reads_well_in_a_browser(site, browser, width):
    """No error in the console, nothing asked of another host, no picture missing, nothing wider than the screen."""
    with served(site[0]) as root:
        addresses = [urljoin(root, page.parent.relative_to(site[0]).as_posix() + "/") for page in html_pages(site[0])]
        assert len(addresses) > 15
        for address in addresses:
            with visit(browser, address, width) as seen:
                pictures = "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
                assert seen.page.evaluate(pictures), f"{address}: a picture is missing"
                assert (seen.errors, seen.strangers, seen.overflow) == ([], [], 0), address
                assert seen.page.locator("h1").first.is_visible()


@pytest.mark.slow
@pytest.mark.browser
def test_every_link_leads_somewhere(site, browser):
    with served(site[0]) as root:
        targets, anchors = set(), {}
        for page in html_pages(site[0]):
            address = urljoin(root, page.parent.relative_to(site[0]).as_posix() + "/")
            with visit(browser, address) as seen:
                hrefs = seen.page.evaluate("[...document.querySelectorAll('a[href]')].map(a => a.href)")
                anchors[address] = set(seen.page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)"))
            targets |= {(address, href) for href in hrefs if href.startswith(root)}
        assert len(targets) > 200
        for source, target in targets:
            page, anchor = urldefrag(target)
            page = page.removesuffix("index.html")
            if page in anchors:
                assert not anchor or anchor in anchors[page], f"{source}: no heading for {target}"
            else:
                assert (site[0] / page.removeprefix(root)).is_file(), f"{source}: {target} does not exist"


@pytest.mark.slow
@pytest.mark.browser
def test_the_search_finds_a_term(site, browser):
    with served(site[0]) as root, visit(browser, root) as seen:
        seen.page.get_by_role("button", name="Search").first.click()
        seen.page.keyboard.type("decoupled", delay=20)
        seen.page.get_by_text("DecoupledTerm").first.click()
        seen.page.wait_for_url("**/reference/terms/**")
        assert seen.errors == []


def html_pages(site: Path) -> list[Path]:
    return sorted(site.rglob("index.html"))

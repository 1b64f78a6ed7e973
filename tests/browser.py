"""Pages opened as a reader opens them: in Chromium, without a window."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from playwright.sync_api import Browser, Page, sync_playwright


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--no-first-run")
PHONE, DESK = 390, 1280
"""Widths of a screen in CSS pixels."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The Chromium of this machine."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address under which the folder's files are served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Visit:
    """An open page, and what went wrong on it."""

    page: Page
    address: str
    errors: list[str] = field(default_factory=list)
    """What the console calls an error, what a script threw, and what could not be loaded."""
    strangers: list[str] = field(default_factory=list)
    """Addresses of other hosts that it asked for something."""

    @property
    def overflow(self) -> int:
        """By how many pixels the page is wider than the screen."""
        return self.page.evaluate("Math.max(0, document.documentElement.scrollWidth - window.innerWidth)")


@contextmanager
def visit(browser: Browser, address: str, width: int = DESK, **context_options) -> Iterator[Visit]:
    """Open a page, wait until it has loaded, and listen to it as long as it is open."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **context_options)
    seen = Visit(context.new_page(), address)
    origin = "/".join(address.split("/")[:3])
    seen.page.on("console", lambda message: seen.errors.append(message.text) if message.type == "error" else None)
    seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
    seen.page.on("requestfailed", lambda request: seen.errors.append(f"{request.url}: {request.failure}"))
    seen.page.on(
        "request",
        lambda request: (
            None if request.url.startswith((origin, "data:", "blob:", "file:")) else seen.strangers.append(request.url)
        ),
    )
    try:
        seen.page.goto(address, wait_until="load")
        yield seen
    finally:
        context.close()

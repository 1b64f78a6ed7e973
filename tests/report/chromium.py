"""A headless Chromium that opens a page at the width of a phone, and says what it saw."""

import html
import json
import re
import shutil
import subprocess

import pytest


NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PROBE = """
<body><iframe id="page" style="border:0;width:WIDTHpx;height:3000px" srcdoc="PAGE"></iframe><script>
const frame = document.getElementById("page");
frame.onload = () => {
  const page = frame.contentDocument, root = page.documentElement;
  const plots = [...page.querySelectorAll("svg")].map((svg) => {
    const box = svg.getBoundingClientRect();
    const title = (svg.querySelector("title") || {}).textContent || "";
    return {width: box.width, height: box.height, shapes: svg.querySelectorAll("path, use").length, title};
  });
  const wide = [...page.querySelectorAll("body *")].filter((one) => one.getBoundingClientRect().right > WIDTH + 1);
  const outside = wide.filter((one) => !one.closest("svg")).length;
  const seen = {width: root.scrollWidth, plots, outside, text: page.body.innerText.length};
  const requests = frame.contentWindow.performance.getEntriesByType("resource").map((one) => one.name);
  document.body.setAttribute("data-seen", JSON.stringify({...seen, requests}));
};
</script></body>
"""


def opened(page: str, folder, width: int = 390) -> tuple[dict, list[str]]:
    """What the page looks like at that width, and what the browser wrote to its console."""
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is installed")
    probe = folder / "probe.html"
    probe.write_text(PROBE.replace("WIDTH", str(width)).replace("PAGE", html.escape(page)), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    options += [f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=5000"]
    done = subprocess.run(
        [browser, *options, "--dump-dom", probe.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    seen = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert seen, done.stderr[-2000:]
    return json.loads(html.unescape(seen[1])), [line for line in done.stderr.splitlines() if "CONSOLE" in line]

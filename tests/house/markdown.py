"""The parts of a Markdown file that can be wrong: code blocks, links and headings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


FENCE = re.compile(r"^ {0,3}(?P<fence>`{3,}|~{3,})(?P<info>.*)$")
HEADING = re.compile(r"^ {0,3}#{1,6}\s+(?P<title>.+?)\s*#*$")
EXPLICIT_ANCHOR = re.compile(r"<a\s[^>]*?(?:id|name)=[\"'](?P<anchor>[^\"']+)")
OWN_FILE = "https://github.com/hf-distill/hf_distill/blob/main/"
"""Where the site's pages find what is not part of the site."""
LINK = re.compile(
    r"\]\(\s*<?(?P<inline>[^)\s>]+)"  # [text](target "title") and ![text](target)
    r"|^ {0,3}\[[^\]]+\]:\s*<?(?P<reference>[^\s>]+)"  # [label]: target
    r"|(?:href|src)=[\"'](?P<html>[^\"']+)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced code block: the words behind its fence, its text, and the line where its text starts."""

    language: str
    tag: str
    text: str
    line: int


def split(page: Path) -> tuple[list[Block], str]:
    """The code blocks of a page, and its prose with an empty line for every line of code."""
    blocks, prose = [], []
    fence, info, code = "", "", []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        match = FENCE.match(line)
        if not fence and match:
            fence, info, code = match["fence"], match["info"].strip(), []
        elif fence and match and match["fence"].startswith(fence) and not match["info"].strip():
            language, _, tag = info.partition(" ")
            blocks.append(Block(language, tag.strip(), "".join(f"{row}\n" for row in code), number - len(code)))
            fence = ""
        elif fence:
            code.append(line)
        else:
            prose.append(line)
            continue
        prose.append("")
    if fence:
        raise ValueError(f"{page}: the code block that starts with {fence}{info} never ends")
    return blocks, "\n".join(prose)


def anchors(page: Path) -> set[str]:
    """What a link into the page can name: its headings as GitHub spells them, and anchors written out."""
    found: set[str] = set()
    prose = split(page)[1]
    for line in prose.splitlines():
        if match := HEADING.match(line):
            slug = slug_of(match["title"])
            number = 0
            while (numbered := f"{slug}-{number}" if number else slug) in found:
                number += 1
            found.add(numbered)
    return found | {match["anchor"] for match in EXPLICIT_ANCHOR.finditer(prose)}


def slug_of(title: str) -> str:
    """A heading's anchor: its visible text in lower case, without punctuation, a hyphen for each space."""
    visible = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", title)
    return re.sub(r"[^\w\- ]", "", visible.strip().lower()).replace(" ", "-")


def links(page: Path) -> Iterator[tuple[int, str]]:
    """The line and target of every link that the page's prose holds, code left out."""
    prose = re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", lambda code: " " * len(code[0]), split(page)[1])
    for match in LINK.finditer(prose):
        yield prose.count("\n", 0, match.start()) + 1, match["inline"] or match["reference"] or match["html"]


def broken_links(page: Path, root: Path) -> list[str]:
    """Links to files or headings that are not there; addresses of other sites are not looked at."""
    faults = []
    for line, target in links(page):
        target = re.sub(rf"^{re.escape(OWN_FILE)}", "/", target)
        if re.match(r"[a-z][a-z0-9+.-]*:", target, re.IGNORECASE):
            continue
        name, _, anchor = target.partition("#")
        base = root if name.startswith("/") else page.parent
        path = (base / name.lstrip("/")).resolve() if name else page
        if not path.exists():
            faults.append(f"{page}:{line}: {target} does not exist")
        elif not path.is_relative_to(root):
            faults.append(f"{page}:{line}: {target} lies outside the repository")
        elif anchor and path.suffix == ".md" and anchor not in anchors(path):
            faults.append(f"{page}:{line}: {path.name} has no heading for #{anchor}")
    return faults

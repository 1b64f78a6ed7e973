"""The commands in the console blocks of a page: each must name a thing that exists."""

import re
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import dropwhile, groupby
from pathlib import Path

from tests.house.markdown import Block


CONSOLE_LANGUAGES = {"console", "shell", "bash", "sh"}
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*=.*")
MAKE_TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)


@dataclass(frozen=True)
class Checkout:
    """What a command may name: files below `root`, tasks, console scripts and pytest's markers."""

    root: Path
    tasks: Collection[str]
    scripts: Collection[str]
    markers: Collection[str]


def commands_of(block: Block) -> Iterator[tuple[int, list[str]]]:
    """The line and words of each command; in a `console` block a command stands behind `$ `, the rest is output."""
    rows = iter(enumerate(block.text.splitlines(), block.line))
    for line, row in rows:
        while row.endswith("\\"):
            row = f"{row[:-1]} {next(rows)[1]}"
        if block.language == "console":
            if not row.startswith("$ "):
                continue
            row = row[2:]
        lexer = shlex.shlex(row, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        for is_operator, group in groupby(lexer, key=lambda word: not set(word) - set("|&;()<>")):
            words = list(dropwhile(VARIABLE.fullmatch, group))
            if words and not is_operator:
                yield line, words


def fault_of(words: list[str], checkout: Checkout) -> str | None:
    """What the command names that does not exist; None where all is well or the command is not ours to judge."""
    program, arguments = words[0], words[1:]
    if re.fullmatch(r"python[\d.]*", program):
        if arguments[:2] == ["-m", "pytest"]:
            return fault_of_pytest(arguments[2:], checkout)
        return fault_of_script(arguments, checkout)
    if program == "pytest":
        return fault_of_pytest(arguments, checkout)
    if program == "make":
        targets = MAKE_TARGET.findall((checkout.root / "Makefile").read_text(encoding="utf-8"))
        unknown = [word for word in arguments if "=" not in word and not word.startswith("-") and word not in targets]
        return f"the Makefile has no target {unknown[0]}" if unknown else None
    if program == "hf-distill" and program not in checkout.scripts:
        return "pyproject.toml declares no command hf-distill"
    if "/" in program and not program.startswith(("/", "~", "$")) and not program.startswith(".venv/"):
        return None if (checkout.root / program).exists() else f"there is no {program}"
    return None


def fault_of_script(arguments: list[str], checkout: Checkout) -> str | None:
    """The same for `python3 FILE …`."""
    if not arguments or arguments[0].startswith("-"):
        return None
    script = checkout.root / arguments[0]
    if not script.is_file():
        return f"there is no {arguments[0]}"
    if arguments[0] == "tasks.py" and (len(arguments) < 2 or arguments[1] not in checkout.tasks):
        return f"tasks.py has no task {' '.join(arguments[1:2])}"
    return None


def fault_of_pytest(arguments: list[str], checkout: Checkout) -> str | None:
    """The same for `pytest …`: its paths, test names and markers."""
    for index, word in enumerate(arguments):
        if index and arguments[index - 1] == "-m":
            unknown = set(re.findall(r"\w+", word)) - {"not", "and", "or", *checkout.markers}
            if unknown:
                return f"pytest has no marker {min(unknown)}"
        elif not word.startswith("-") and ("/" in word or word.endswith(".py")):
            name, *inner = word.split("::")
            path = checkout.root / name
            if not path.exists():
                return f"there is no {name}"
            text = path.read_text(encoding="utf-8") if inner else ""
            for part in inner:
                if not re.search(rf"(def|class) {re.escape(part.split('[')[0])}\b", text):
                    return f"{name} has no {part}"
    return None

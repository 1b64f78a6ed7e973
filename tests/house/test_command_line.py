"""Every option and every error of the command line stands on its page."""

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest
from transformers import TrainingArguments

import hf_distill
from hf_distill.cli.commands import COMMANDS
from hf_distill.training_args import DistillationTrainingArguments


PACKAGE = Path(hf_distill.__file__).parent
PAGE = (PACKAGE.parent / "docs" / "command_line.md").read_text(encoding="utf-8")
ROOMS = ("cli", "jobs", "processing", "data_sources.py")
"""What the command line alone leads to. What other rooms refuse stands on their own pages."""


def undocumented_options(page):
    """Options that are nowhere on a page."""
    groups = {group for command in COMMANDS.values() for group in command.groups}
    inherited = {field.name for field in fields(TrainingArguments)}
    own = [field.name for field in fields(DistillationTrainingArguments) if field.name not in inherited]
    names = {field.name for group in groups for field in fields(group)} | set(own)
    return sorted(name for name in names if not re.search(rf"--{name}(?![\w-])", page))


def raised(path):
    """The errors of ours that a module raises: line, and message with … in place of each value."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            name = ast.unparse(node.exc.func)
            message = words(node.exc.args[0])
            if name.endswith("Error") and message.strip("…"):
                yield node.lineno, message


def words(node):
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(words, node.values))
    if isinstance(node, ast.BinOp):
        return words(node.left) + words(node.right)
    return "…"


def said(page):
    """What the table of errors says, each as a pattern in which … stands for anything."""
    table = page.partition("\n## Errors\n")[2]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    parts = [part for cell in cells for part in re.findall(r"`([^`]+)`", cell)]
    return [".*".join(map(re.escape, re.split("[…']+", part))) for part in parts]


def undocumented_errors(page, paths):
    """Errors that no row of the table fits."""
    known = [re.compile(pattern, re.DOTALL) for pattern in said(page)]
    return [
        f"{path.name}:{line}: {message[:90]}"
        for path in paths
        for line, message in raised(path)
        if not any(pattern.search(message) for pattern in known)
    ]


def modules():
    return [
        path
        for room in ROOMS
        for path in ([PACKAGE / room] if room.endswith(".py") else (PACKAGE / room).glob("*.py"))
    ]


def test_every_command_is_on_the_page():
    assert [name for name in COMMANDS if f"| `hf-distill {name}` |" not in PAGE] == []


def test_every_option_is_on_the_page():
    assert undocumented_options(PAGE) == []


def test_every_error_is_on_the_page():
    assert undocumented_errors(PAGE, modules()) == []


def test_finds_an_option_that_is_missing():
    assert undocumented_options(PAGE.replace("--budget", "--bud")) == ["budget"]
    assert "text_column" in undocumented_options(PAGE.replace("`--text_column`", "`--text_column_of_mine`"))


@pytest.mark.parametrize(
    ("row", "is_found"),
    [
        ("| `size=… is too large` | a smaller one |", True),
        ("| `size=…`, `is too small` | a larger one |", True),
        ("| `is not known` | another |", False),
    ],
)
def test_finds_an_error_that_is_missing(row, is_found, tmp_path):
    path = tmp_path / "module.py"
    path.write_text("def f(size):\n    raise ConfigurationError(f'size={size!r} is too ' f'large: {size} is.')\n")
    assert (undocumented_errors(f"\n## Errors\n\n{row}\n", [path]) == []) == is_found

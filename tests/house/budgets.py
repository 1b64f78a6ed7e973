"""How large and how plainly named the files and functions are, read from the sources without running them."""

import ast
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from statistics import median


MAX_FILE_LINES = 500
MAX_MODELING_FILE_LINES = 700
MAX_MEDIAN_LINES = 150
MAX_FUNCTION_LINES = 60
EMPTY_NAMES = {"utils", "common", "misc", "helpers"}
UNFINISHED = re.compile(r"\b(" + "TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def num_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def long_files(paths: Iterable[Path]) -> list[str]:
    """Files over their number of lines; Transformers keeps a model in one file, so a modeling file may be longer."""
    limits = {path: MAX_MODELING_FILE_LINES if path.name.startswith("modeling_") else MAX_FILE_LINES for path in paths}
    return [
        f"{path}:1: {num_lines(path)} lines, {limit} allowed"
        for path, limit in limits.items()
        if num_lines(path) > limit
    ]


def median_lines(paths: Iterable[Path]) -> float:
    """The median number of lines of the files that hold any."""
    return median(lines for path in paths if (lines := num_lines(path)))


def long_functions(paths: Iterable[Path]) -> list[str]:
    """Functions over the allowed number of lines, from `def` to the end, the docstring not counted."""
    faults = []
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, FUNCTION):
                continue
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            if lines > MAX_FUNCTION_LINES:
                faults.append(f"{path}:{node.lineno}: {node.name} has {lines} lines, {MAX_FUNCTION_LINES} allowed")
    return faults


def empty_names(paths: Iterable[Path]) -> list[str]:
    """Files and folders whose name says nothing about what is in them."""
    return [f"{path}:1: a name that says nothing" for path in paths if {path.stem, path.parent.name} & EMPTY_NAMES]


def unfinished(paths: Iterable[Path]) -> list[str]:
    """Lines that put work off."""
    return [
        f"{path}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]


def is_trivial(path: Path) -> bool:
    """Whether a module holds no function or method, so that there is nothing in it to run."""
    return not any(isinstance(node, FUNCTION) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def untested(package: Path, tests: Path) -> list[str]:
    """Modules without a test file of their name, in the folder of tests that bears the room's name."""
    faults = []
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        if path.name == "__init__.py" or is_trivial(path):
            continue
        folder = tests if len(inside.parts) == 1 else tests / inside.parts[0]
        if not any(folder.rglob(f"test_{path.name}")):
            faults.append(f"{inside.as_posix()}: no test_{path.name} under {folder}")
    return faults


def names_in(node: ast.AST | None) -> Iterator[str]:
    for part in ast.walk(node) if node else ():
        if isinstance(part, ast.Name):
            yield part.id
        elif isinstance(part, ast.Attribute):
            yield part.attr


def raised(paths: Iterable[Path]) -> set[str]:
    """The names that stand in a `raise`."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in paths)
    raises = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Raise))
    return {name for node in raises for name in names_in(node)}


def expected_in_tests(paths: Iterable[Path]) -> set[str]:
    """The names that stand in the first argument of a `pytest.raises`."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in paths)
    calls = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args)
    return {name for call in calls if ast.unparse(call.func) == "pytest.raises" for name in names_in(call.args[0])}


def error_classes(path: Path) -> list[str]:
    """The error classes of a file that are no other one's base there."""
    classes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    bases = {name for node in classes for base in node.bases for name in names_in(base)}
    return [node.name for node in classes if node.name not in bases]


def undocumented(names: Collection[str], pages: Iterable[Path]) -> list[str]:
    """The names that stand on none of the pages."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    return [name for name in names if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]

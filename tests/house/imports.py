"""Which room of the package imports which, read from the sources without running them."""

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """One imported thing: `module` is absolute, and `names` are what a `from` import takes out of it."""

    line: int
    module: str
    names: tuple[str, ...] = ()


def imports_of(path: Path, package: tuple[str, ...]) -> Iterator[Import]:
    """Every import of a file, wherever it stands: in functions, under TYPE_CHECKING, through `import_module`.

    Args:
        path: the file.
        package: the dotted parts of the package that the file lies in, against which relative imports are read.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield Import(node.lineno, module, tuple(alias.name for alias in node.names))
        elif (name := name_of_import_call(node)) is not None:
            inner = name.lstrip(".")
            base = package[: len(package) - (len(name) - len(inner)) + 1] if inner != name else ()
            yield Import(node.lineno, ".".join([*base, inner]))


def name_of_import_call(node: ast.AST) -> str | None:
    """The module that an `import_module("…")` or `__import__("…")` names outright; None for anything else."""
    if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
        return None
    is_import = ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__")
    return node.args[0].value if is_import else None


def rooms_imported(found: Import, package_name: str) -> list[str]:
    """The rooms of the package that an import enters; the package itself counts as a room named ""."""
    parts = found.module.split(".")
    if parts[0] != package_name:
        return []
    if len(parts) > 1:
        return [parts[1]]
    return list(found.names) or [""]


def violations(package: Path, rooms: Mapping[str, Collection[str]], trainerless: Collection[str]) -> list[str]:
    """What of a package breaks the rules, as `file:line: rule`.

    Args:
        package: the package's folder.
        rooms: for each room, the rooms that it may import, itself always being one.
        trainerless: the rooms that may not import Transformers' Trainer either.
    """
    faults = []
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        if inside == Path("__init__.py"):
            continue  # the table of contents names every room
        room = inside.parts[0].removesuffix(".py")
        if room not in rooms:
            faults.append(f"{path}:1: '{room}' is no room of the house: give it a row in the table of rooms")
            continue
        for found in imports_of(path, (package.name, *inside.parts[:-1])):
            place = f"{path}:{found.line}"
            for target in rooms_imported(found, package.name):
                if target not in rooms:
                    faults.append(f"{place}: '{room}' imports {target or 'all'} from the package: name its room")
                elif target != room and target not in rooms[room]:
                    allowed = ", ".join(sorted(rooms[room])) or "nothing of the house"
                    faults.append(f"{place}: '{room}' imports '{target}', but may import {allowed}")
            if room in trainerless and is_trainer(found):
                faults.append(f"{place}: '{room}' imports Transformers' Trainer, which only lower rooms know")
    return faults


def is_trainer(found: Import) -> bool:
    """Whether an import brings in Transformers' Trainer or its arguments."""
    if found.module.split(".")[0] != "transformers":
        return False
    parts = (*found.module.split(".")[1:], *found.names)
    return any(re.match("(seq2seq_?)?train(er|ing)", part, re.IGNORECASE) for part in parts)

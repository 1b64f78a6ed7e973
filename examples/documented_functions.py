"""Real text that every Python carries: the functions of its standard library, and the first line of what each does.

Not an example itself: two of the others read it.
"""

import importlib
import inspect
import pkgutil
import sys
import warnings
from collections.abc import Iterator


SKIPPED = {"antigravity", "this", "idlelib", "lib2to3", "test", "turtledemo", "__main__", "tkinter", "turtle"}


def documented_functions() -> list[tuple[str, str]]:
    """Pairs of a name, as `shutil.copytree`, and a line, as "Recursively copy a directory tree …", each line once."""
    names = sorted(name for _, name, _ in pkgutil.iter_modules() if name in sys.stdlib_module_names - SKIPPED)
    names += sorted(sys.builtin_module_names)
    pairs = {line: name for module in names if not module.startswith("_") for name, line in functions_of(module)}
    return sorted((name, line) for line, name in pairs.items())


def functions_of(module_name: str) -> Iterator[tuple[str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module = importlib.import_module(module_name)
        except ImportError:  # parts of another operating system
            return
    for name, value in vars(module).items():
        members = vars(value).items() if inspect.isclass(value) else [(None, value)]
        for member, function in members:
            full_name = f"{module_name}.{name}" + (f".{member}" if member else "")
            doc = inspect.getdoc(function) if inspect.isroutine(function) else None
            if doc and "._" not in full_name and 20 < len(line := doc.split("\n")[0]) < 90:
                yield full_name, line

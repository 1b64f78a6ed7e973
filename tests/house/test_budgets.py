"""The house's budgets and promises, each with a planted violation that it must find."""

import ast
import inspect
from pathlib import Path

import pytest

import hf_distill
from tests.house import budgets


PACKAGE = Path(hf_distill.__file__).parent
ROOT = PACKAGE.parent
PYTHON_FILES = [
    *(path for folder in ("hf_distill", "tests", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py")),
    ROOT / "tasks.py",
]
PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
TEST_FILES = list((ROOT / "tests").rglob("*.py"))

# Modules without a test file of their own, and errors that no test can match, each with the reason.
UNTESTED: dict[str, str] = {}
UNMATCHED_ERRORS: dict[str, str] = {}


def test_files_are_short():
    assert budgets.long_files(PYTHON_FILES) == []


def test_the_median_file_is_short():
    assert budgets.median_lines(PACKAGE.rglob("*.py")) <= budgets.MAX_MEDIAN_LINES


def test_functions_are_short():
    assert budgets.long_functions(PYTHON_FILES) == []


def test_names_say_something():
    assert budgets.empty_names(path.relative_to(ROOT) for path in PYTHON_FILES) == []


def test_nothing_is_put_off():
    assert budgets.unfinished([*PYTHON_FILES, *PAGES]) == []


def test_tests_mirror_the_package():
    faults = budgets.untested(PACKAGE, ROOT / "tests")
    assert [fault for fault in faults if fault.split(": ")[0] not in UNTESTED] == []
    assert UNTESTED.keys() <= {fault.split(": ")[0] for fault in faults}


def test_every_error_is_raised():
    errors = budgets.error_classes(PACKAGE / "errors.py")
    assert errors
    assert set(errors) - budgets.raised(PACKAGE.rglob("*.py")) == set()


def test_every_error_is_matched_by_a_test():
    errors = set(budgets.error_classes(PACKAGE / "errors.py"))
    assert errors - budgets.expected_in_tests(TEST_FILES) == set(UNMATCHED_ERRORS)


def test_public_names_are_exported_to_type_checkers():
    """They read `__all__` without running it, so it must be a plain list."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    assigned = [
        node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    assert ast.literal_eval(assigned[0].value) == hf_distill.__all__


def test_public_names_have_a_docstring():
    public = {name: getattr(hf_distill, name) for name in hf_distill.__all__ if name != "__version__"}
    assert [name for name, thing in public.items() if not (thing.__doc__ or "").strip()] == []
    # A dataclass without a docstring gets its signature for one.
    generated = [name for name, thing in public.items() if thing.__doc__.startswith(f"{name}(")]
    assert generated == []
    inherited = [name for name, thing in public.items() if inspect.isclass(thing) and "__doc__" not in vars(thing)]
    assert inherited == []


def test_public_names_are_documented():
    assert budgets.undocumented([name for name in hf_distill.__all__ if name != "__version__"], PAGES) == []


def plant(folder: Path, name: str, text: str) -> list[Path]:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return [path]


@pytest.mark.parametrize(("name", "limit"), [("a.py", 500), ("modeling_a.py", 700)])
def test_finds_long_files(name, limit, tmp_path):
    assert budgets.long_files(plant(tmp_path, name, "x = 1\n" * limit)) == []
    assert (
        f"{name}:1: {limit + 1} lines, {limit} allowed"
        in budgets.long_files(plant(tmp_path, name, "x = 1\n" * (limit + 1))).pop()
    )


def test_finds_the_median(tmp_path):
    for lines in (0, 1, 200, 300):
        plant(tmp_path, f"f{lines}.py", "x = 1\n" * lines)
    assert budgets.median_lines(tmp_path.rglob("*.py")) == 200


@pytest.mark.parametrize("head", ["def f():\n", "async def f():\n", 'def f():\n    """One,\n    two."""\n'])
def test_finds_long_functions(head, tmp_path):
    assert budgets.long_functions(plant(tmp_path, "a.py", head + "    x = 1\n" * 59)) == []
    found = budgets.long_functions(plant(tmp_path, "a.py", "class A:\n    pass\n" + head + "    x = 1\n" * 60))
    assert found == [f"{tmp_path / 'a.py'}:3: f has 61 lines, 60 allowed"]


@pytest.mark.parametrize("name", ["utils.py", "helpers/a.py", "misc/__init__.py", "common.py"])
def test_finds_empty_names(name):
    assert budgets.empty_names([Path(name)]) == [f"{name}:1: a name that says nothing"]
    assert budgets.empty_names([Path("masking.py"), Path("utilsations.py")]) == []


def test_finds_what_is_put_off(tmp_path):
    mark = "TO" + "DO"
    assert budgets.unfinished(plant(tmp_path, "a.py", f"x = 1\n# {mark}: y\n")) == [
        f"{tmp_path / 'a.py'}:2: # {mark}: y"
    ]
    assert budgets.unfinished(plant(tmp_path, "a.py", f"{mark}S = 1\n")) == []


def test_finds_untested_modules(tmp_path):
    package, tests = tmp_path / "package", tmp_path / "tests"
    for module in ("a.py", "room/b.py", "room/deep/c.py"):
        plant(package, module, "def f(): ...")
    plant(package, "constants.py", "class A:\n    x: int = 1")
    plant(package, "room/__init__.py", "def f(): ...")
    assert budgets.untested(package, tests) == [
        f"a.py: no test_a.py under {tests}",
        f"room/b.py: no test_b.py under {tests / 'room'}",
        f"room/deep/c.py: no test_c.py under {tests / 'room'}",
    ]
    for test in ("test_a.py", "room/test_b.py", "test_c.py", "room/deep/test_c.py"):
        assert budgets.untested(package, tests) != []
        plant(tests, test, "")
    assert budgets.untested(package, tests) == []


def test_finds_errors_that_are_not_raised_or_matched(tmp_path):
    errors = plant(tmp_path, "errors.py", "class A(Exception): ...\nclass B(A, ValueError): ...\nclass C(A): ...")
    assert budgets.error_classes(*errors) == ["B", "C"]
    assert budgets.raised(plant(tmp_path, "a.py", "C\nif x:\n    raise errors.B('no') from None")) >= {"B"}
    assert "C" not in budgets.raised([tmp_path / "a.py"])
    matched = plant(tmp_path, "test_a.py", "C\nwith pytest.raises((errors.B, KeyError), match='C'):\n    C()")
    assert budgets.expected_in_tests(matched) == {"errors", "B", "KeyError"}


def test_finds_undocumented_names(tmp_path):
    page = plant(tmp_path, "a.md", "Use `Objective` and MyHead.")
    assert budgets.undocumented(["Objective", "Head"], page) == ["Head"]

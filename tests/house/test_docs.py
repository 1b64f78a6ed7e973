"""The pages do what they say: their Python runs, their commands name what exists, their links lead somewhere."""

import importlib.util
import re
import sys
import types
from pathlib import Path

import pytest

from tests.house.commands import CONSOLE_LANGUAGES, Checkout, commands_of, fault_of
from tests.house.markdown import Block, anchors, broken_links, links, split


ROOT = Path(__file__).parents[2]
ALL_PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in ALL_PAGES if page.exists()]
NOT_OURS = {".venv", ".git", "build", "dist", "outputs", "runs"}
ALL_MARKDOWN = [page for page in sorted(ROOT.rglob("*.md")) if not NOT_OURS & set(page.relative_to(ROOT).parts)]
PRELUDES = Path(__file__).parent / "doc_preludes"

NO_RUN = re.compile(r"no-run: *\S.*")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prelude_of(page: Path) -> Path:
    return PRELUDES / page.relative_to(ROOT).with_suffix(".py")


def runnable(blocks: list[Block]) -> list[Block]:
    """The Python blocks that are to run; one that is not must say why."""
    found = []
    for block in blocks:
        if block.language not in ("python", "py"):
            continue
        if not block.tag:
            found.append(block)
        elif not NO_RUN.fullmatch(block.tag):
            raise ValueError(f"line {block.line}: a Python block is tagged '{block.tag}', not 'no-run: <reason>'")
    return found


def run_blocks(page: Path, blocks: list[Block], prelude: Path) -> dict[str, object]:
    """Run the prelude, if there is one, then the blocks in their order, all in one module; return its namespace."""
    module = types.ModuleType(f"page_{re.sub(r'[^a-z0-9]+', '_', page.stem.lower())}")
    sys.modules[module.__name__] = module  # dataclasses and pickle look their module up
    try:
        if prelude.exists():
            exec(compile(prelude.read_text(encoding="utf-8"), str(prelude), "exec"), vars(module))
        for block in blocks:
            # Empty lines in front, so that a traceback names the line of the page.
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), vars(module))
    finally:
        del sys.modules[module.__name__]
    return vars(module)


def checkout() -> Checkout:
    spec = importlib.util.spec_from_file_location("tasks", ROOT / "tasks.py")
    tasks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tasks)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = re.search(r"^\[project\.scripts\]\n(.*?)(?=^\[|\Z)", project, re.MULTILINE | re.DOTALL)
    scripts = re.findall(r"^([\w-]+) *=", section[1], re.MULTILINE) if section else []
    markers = re.findall(r'^    "(\w+): ', project, re.MULTILINE)
    return Checkout(ROOT, tasks.TASKS, scripts, markers)


def test_there_is_a_readme():
    assert ROOT / "README.md" in PAGES


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = split(page)[0]
    run_blocks(page, runnable(blocks), prelude_of(page))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_name_what_exists(page):
    here = checkout()
    blocks = [block for block in split(page)[0] if block.language in CONSOLE_LANGUAGES]
    faults = [f"{page}:{line}: {fault_of(words, here)}" for block in blocks for line, words in commands_of(block)]
    assert [fault for fault in faults if not fault.endswith(": None")] == []


@pytest.mark.parametrize("page", ALL_MARKDOWN, ids=name_of)
def test_links_lead_somewhere(page):
    assert broken_links(page, ROOT) == []


def test_every_prelude_has_its_page():
    preludes = {path.relative_to(PRELUDES) for path in PRELUDES.rglob("*.py")}
    assert preludes <= {page.relative_to(ROOT).with_suffix(".py") for page in PAGES}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_blocks_share_a_namespace_and_the_prelude(tmp_path):
    prelude = write(tmp_path / "prelude.py", "given = 1")
    page = write(
        tmp_path / "a.md",
        "```python\nx = given + 1\n```\n"
        "~~~text\n```python\nx = 'inside another block'\n```\n~~~\n"
        "```python no-run: needs a GPU\nx = 0\n```\n"
        "```python\ny = x + 1\n```\n",
    )
    assert run_blocks(page, runnable(split(page)[0]), prelude)["y"] == 3


def test_a_failing_block_names_its_line(tmp_path):
    page = write(tmp_path / "a.md", "# A\n\n```python\nx = 1\nraise KeyError(x)\n```\n")
    with pytest.raises(KeyError) as caught:
        run_blocks(page, runnable(split(page)[0]), tmp_path / "none.py")
    last = caught.traceback[-1]
    assert (str(last.path), last.lineno + 1) == (str(page), 5)


@pytest.mark.parametrize("tag", ["no-run", "no-run:", "no-run: ", "skip", "title=x"])
def test_refuses_to_skip_without_a_reason(tag, tmp_path):
    page = write(tmp_path / "a.md", f"```python {tag}\nx = 1\n```\n")
    with pytest.raises(ValueError, match="line 2: a Python block is tagged"):
        runnable(split(page)[0])


def test_refuses_a_block_without_an_end(tmp_path):
    with pytest.raises(ValueError, match="never ends"):
        split(write(tmp_path / "a.md", "```python\nx = 1\n"))


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("python3 tasks.py test --all", None),
        ("python3 tasks.py tset", "tasks.py has no task tset"),
        ("python3 tasks.py", "tasks.py has no task "),
        ("python examples/here.py --x 1", None),
        ("CUDA_VISIBLE_DEVICES=0 python3.12 examples/gone.py", "there is no examples/gone.py"),
        ("cd x && python examples/gone.py", "there is no examples/gone.py"),
        ("pip install -e '.[dev]'", None),
        ("pytest tests/test_here.py::test_it -k 'a and b'", None),
        ("pytest tests/test_gone.py", "there is no tests/test_gone.py"),
        ("python -m pytest tests/test_here.py::test_gone", "tests/test_here.py has no test_gone"),
        ("pytest -m 'slow and not gpu'", None),
        ("pytest -m 'fast'", "pytest has no marker fast"),
        ("make help", None),
        ("make hlep", "the Makefile has no target hlep"),
        ("hf-distill report", "pyproject.toml declares no command hf-distill"),
        ("python -m accelerate.commands.launch x.py", None),
        (".ci/run", "there is no .ci/run"),
    ],
)
@pytest.mark.parametrize("language", ["console", "bash"])
def test_finds_commands_that_name_nothing(command, fault, language, tmp_path):
    for name, text in {
        "tasks.py": "",
        "examples/here.py": "",
        "tests/test_here.py": "def test_it(): ...",
        "Makefile": "help: ## x\n",
    }.items():
        write(tmp_path / name, text)
    here = Checkout(tmp_path, {"test"}, set(), {"slow", "gpu"})
    text = f"$ {command}\npython3 output.py\n" if language == "console" else f"{command}  # why\n"
    faults = [fault_of(words, here) for _, words in commands_of(Block(language, "", text, 1))]
    assert [found for found in faults if found] == ([fault] if fault else [])


def test_a_command_may_go_on_in_the_next_line(tmp_path):
    block = Block("bash", "", "python3 tasks.py demo \\\n  --max_steps 3\npython3 -c 'a; b' | sort\n", 7)
    assert list(commands_of(block)) == [
        (7, ["python3", "tasks.py", "demo", "--max_steps", "3"]),
        (9, ["python3", "-c", "a; b"]),
        (9, ["sort"]),
    ]


def test_the_checkout_is_read_right():
    here = checkout()
    assert {"demo", "test", "check"} <= set(here.tasks)
    assert {"slow", "soak", "gpu", "distributed"} <= set(here.markers)


def test_finds_broken_links(tmp_path):
    write(tmp_path / "docs/b.md", "# One `two`: three?\n## Same\n## Same\n<a id='mark'></a>\n```\n# no heading\n```\n")
    assert anchors(tmp_path / "docs/b.md") == {"one-two-three", "same", "same-1", "mark"}
    page = write(
        tmp_path / "a.md",
        "[x](docs/b.md) [x](docs/b.md#same-1 'title') [x](#here) [x](https://a.b/c) <a href='docs/b.md#mark'>\n"
        "`[x](inline/code)`\n\n# Here\n\n"
        "[x](docs/c.md) ![x](docs/b.png)\n"
        "[x](docs/b.md#no-heading) [x](#gone)\n"
        "[label]: docs/d.md\n\n"
        "[x](../outside)\n",
    )
    write(tmp_path.parent / "outside", "")
    assert len(list(links(page))) == 11
    assert [fault.removeprefix(f"{page}:") for fault in broken_links(page, tmp_path)] == [
        "6: docs/c.md does not exist",
        "6: docs/b.png does not exist",
        "7: b.md has no heading for #no-heading",
        "7: a.md has no heading for #gone",
        "8: docs/d.md does not exist",
        "10: ../outside lies outside the repository",
    ]

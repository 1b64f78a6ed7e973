"""Everything that a user or contributor runs from a checkout: `python3 tasks.py TASK [arguments]`.

Tasks:
    demo        train a small student with the arguments of examples/distill_language_model.py
    test        lint, types, the built wheel, then every test; with pytest's arguments, pytest alone
                (tests marked `slow` run too with `--all`, or where CI=true)
    check       lint, types, and what bandit finds unsafe
    audit       known vulnerabilities of the versions in constraints.txt (asks a data base over the network)
    format      rewrite the sources in the house's format
    docs        draw the pictures and build the docs site into site/, with warnings as errors
    wheel       build dist/*.tar.gz and dist/*.whl, and test the wheel away from the checkout
    benchmarks  run every script in benchmarks/, with the arguments; benchmarks/heads/run.py where HF_DISTILL_DATA
                names a folder of real data sets
    clean       remove all that these tasks made, .venv too

The first run makes .venv and installs the versions of constraints.txt into it, which takes a minute or two. Set PYTHON
to the interpreter that .venv is to be made with; it is this one otherwise.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "installed-from"
INSTALLED_FROM = ("constraints.txt", "pyproject.toml", "setup.cfg", "hf_distill/version.py")
NUM_TEST_PROCESSES = min(4, os.cpu_count() or 1)
# What of the tests runs against the wheel: the package as a whole, and one room that needs most of it to import.
WHEEL_TESTS = ("house/test_installed_package.py", "functional")


def run(*command, env=None, cwd=ROOT):
    """Run a command in sight of the user; end with its exit code where it fails."""
    code = subprocess.run([str(part) for part in command], cwd=cwd, env=env, stdin=subprocess.DEVNULL).returncode
    if code:
        sys.exit(code if code > 0 else 128 - code)  # below 0 it is the signal that ended the command


def interpreter(venv):
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def output_of(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout


def environment():
    """The interpreter of .venv, made, or brought up to date where what it was installed from changed."""
    base, python = os.environ.get("PYTHON", sys.executable), interpreter(VENV)
    version = shutil.which(base) and output_of(base, "-c", "import sys, venv, ensurepip; print(sys.version)")
    if not version:
        sys.exit(f"{base} is no Python with venv and ensurepip: install them (Debian: python3-venv) or set PYTHON.")
    sources = [(ROOT / name).read_bytes() for name in INSTALLED_FROM]
    wanted = hashlib.sha256(b"\0".join([version.encode(), str(ROOT).encode(), *sources])).hexdigest()
    if STAMP.is_file() and STAMP.read_text() == wanted and python.exists():
        return python
    same_python = python.exists() and output_of(python, "-c", "import sys; print(sys.version)") == version
    if python.exists() and not same_python and not STAMP.exists():
        sys.exit(f"{VENV} is of another Python and not made by tasks.py: move it away, or set PYTHON to its Python.")
    print(f"Installing hf_distill and the versions of constraints.txt into {VENV} …", flush=True)
    run(base, "-m", "venv", *([] if same_python else ["--clear"]), VENV)
    STAMP.write_text("unfinished")
    pip_version = output_of(python, "-m", "pip", "--version").split()[1].split(".")
    if tuple(map(int, pip_version[:2])) < (21, 3):  # the first that installs an editable pyproject.toml
        run(python, "-m", "pip", "install", "--upgrade", "pip")
    run(python, "-m", "pip", "install", "-c", "constraints.txt", "-e", ".[dev]")
    STAMP.write_text(wanted)
    return python


def demo(*arguments):
    run(environment(), "examples/distill_language_model.py", *arguments)


def check():
    python = environment()
    run(python, "-m", "ruff", "check", ".")
    run(python, "-m", "ruff", "format", "--check", ".")
    run(python, "-m", "mypy")
    run(python, "-m", "bandit", "--quiet", "--configfile", "pyproject.toml", "--recursive", "hf_distill")


def audit():
    with tempfile.TemporaryDirectory() as folder:
        python = interpreter(Path(folder))
        run(environment(), "-m", "venv", folder)
        run(python, "-m", "pip", "install", "--quiet", "pip-audit")
        run(python, "-m", "pip_audit", "--requirement", "constraints.txt", "--no-deps", "--disable-pip")


def format():
    python = environment()
    run(python, "-m", "ruff", "check", "--fix", ".")
    run(python, "-m", "ruff", "format", ".")


def run_pytest(python, *arguments, cwd=ROOT, **variables):
    """Run pytest in a process for each core, of one thread each: more threads only get in each other's way."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **variables}
    run(python, "-m", "pytest", "-n", NUM_TEST_PROCESSES, "--dist", "worksteal", *arguments, env=env, cwd=cwd)


def test(*arguments):
    selected = [argument for argument in arguments if argument != "--all"]
    if not selected:
        check()
        wheel()
    everything = "--all" in arguments or os.environ.get("CI") == "true"
    run_pytest(environment(), *(["-m", "not soak"] if everything else []), *selected)


def wheel():
    """Build both archives; install the wheel where the checkout cannot be imported, beside .venv's dependencies."""
    python = environment()
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    run(python, "-m", "build", "--no-isolation", "--outdir", "dist", ".")
    with tempfile.TemporaryDirectory() as folder:
        clean_room = Path(folder)
        room_python = interpreter(clean_room / "venv")
        run(python, "-m", "venv", clean_room / "venv")
        run(room_python, "-m", "pip", "install", "--quiet", "--no-deps", *(ROOT / "dist").glob("*.whl"))
        find_packages = "import sysconfig; print(sysconfig.get_path('purelib'))"
        # A path in a .pth file brings the packages, but not the .pth file of the editable install among them.
        own, dependencies = (output_of(path, "-c", find_packages).strip() for path in (room_python, python))
        (Path(own) / "dependencies.pth").write_text(dependencies)
        shutil.copytree(ROOT / "tests", clean_room / "tests")
        shutil.copy(ROOT / "pyproject.toml", clean_room)
        tests = [f"tests/{name}" for name in WHEEL_TESTS]
        run_pytest(room_python, *tests, cwd=clean_room, HF_DISTILL_SOURCE=str(ROOT / "hf_distill"))


def docs():
    python = environment()
    run(python, "docs/figures.py")
    run(python, "-m", "zensical", "build", "--clean", "--strict")
    print(f"Open it with: {python} -m http.server --directory site")


def benchmarks(*arguments):
    python = environment()
    folder = ROOT / "benchmarks"
    for script in (*sorted(folder.glob("*.py")), *sorted(folder.glob("*/run.py"))):
        run(python, script, *arguments)


def clean():
    made = [
        VENV,
        *(ROOT / name for name in ("build", "dist", "site", ".cache", ".hypothesis")),
        *(ROOT / f".{name}_cache" for name in ("mypy", "pytest", "ruff")),
    ]
    for folder in [*made, *ROOT.glob("*.egg-info"), ROOT / "__pycache__", *ROOT.glob("[!.]*/**/__pycache__")]:
        shutil.rmtree(folder, ignore_errors=True)


TASKS = {task.__name__: task for task in (demo, test, check, audit, format, docs, wheel, benchmarks, clean)}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TASKS:
        sys.exit(__doc__.strip())
    os.chdir(ROOT)
    try:
        TASKS[sys.argv[1]](*sys.argv[2:])
    except KeyboardInterrupt:
        sys.exit(130)

"""The package as it is installed: an editable checkout, or the built wheel away from it."""

import importlib
import os
import pkgutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

import hf_distill


PACKAGE = Path(hf_distill.__file__).parent
# The sources that the wheel was built from; set where the installed package is that wheel.
SOURCE = os.environ.get("HF_DISTILL_SOURCE")


@pytest.fixture(scope="module")
def installed():
    try:
        return distribution("hf_distill")
    except PackageNotFoundError:
        pytest.skip("hf_distill is imported from a folder, not installed")


@pytest.fixture(scope="module")
def wheel(installed):
    """The installed distribution, where `python3 tasks.py wheel` installed it out of the wheel."""
    if SOURCE is None:
        pytest.skip("looks at the built wheel: `python3 tasks.py wheel` runs it")
    return installed


def test_version_is_the_installed_one(installed):
    assert hf_distill.__version__ == installed.version


def test_ships_its_types():
    assert (PACKAGE / "py.typed").is_file()


def test_every_module_imports():
    names = [module.name for module in pkgutil.walk_packages([str(PACKAGE)], "hf_distill.")]
    assert len(names) >= len(list(PACKAGE.glob("*.py"))) - 1
    for name in names:
        importlib.import_module(name)


def test_every_public_name_is_there():
    for name in hf_distill.__all__:
        assert getattr(hf_distill, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nowhere"):
        hf_distill.nowhere  # noqa: B018


def test_importing_the_package_alone_registers_its_models():
    model_type, model = hf_distill.EncoderLMConfig.model_type, hf_distill.EncoderLMModel.__name__
    code = "import sys, transformers, hf_distill; config = transformers.AutoConfig.for_model(sys.argv[1]); "
    code += "print(type(transformers.AutoModel.from_config(config)).__name__)"
    done = subprocess.run([sys.executable, "-c", code, model_type], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == (model, 0), done.stderr


def test_wheel_holds_the_package_alone(wheel):
    outside = [path for path in wheel.files if path.parts[0] == ".."]
    assert [path.stem for path in outside] == ["hf-distill"]  # the command, beside the interpreter
    tops = {path.parts[0] for path in wheel.files if path not in outside}
    assert sorted(tops) == ["hf_distill", f"hf_distill-{wheel.version}.dist-info"]


def test_wheel_is_what_is_tested(wheel):
    assert Path(wheel.locate_file("hf_distill")).resolve() == PACKAGE.resolve()


def test_wheel_holds_every_source_file(wheel):
    assert Path(SOURCE) != PACKAGE
    modules = {path.relative_to(SOURCE) for path in Path(SOURCE).rglob("*.py")}
    assert modules == {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")}


def test_wheel_carries_the_readme_and_the_licence(wheel):
    assert wheel.metadata["License-Expression"] == "Apache-2.0"
    assert "Apache License" in wheel.read_text("licenses/LICENSE")
    assert wheel.metadata["Description-Content-Type"] == "text/markdown"
    assert "hf_distill" in wheel.metadata.get_payload()

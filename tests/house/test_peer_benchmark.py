"""The comparison with other libraries runs without any of them, and says why each is not there."""

import importlib
from pathlib import Path

import pytest


FOLDER = Path(__file__).parents[2] / "benchmarks" / "peers"


@pytest.fixture
def peers(monkeypatch):
    """Imports a module of the benchmark."""
    for folder in (FOLDER.parent, FOLDER):
        monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module


def test_a_library_that_is_missing_is_a_row_with_the_reason(peers, monkeypatch, tmp_path):
    libraries = peers("libraries")
    broken = tmp_path / "broken_library.py"
    broken.write_text("raise RuntimeError('of another year')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(libraries, "MODULES", {"no-such-library": "no_such_library", "pytest": "broken_library"})

    found = libraries.Libraries(None)

    assert found.versions == {}
    assert "| no-such-library | not installed: pip install no-such-library |" in found.table()
    assert f"| pytest | {pytest.__version__} does not import: RuntimeError: of another year |" in found.table()
    assert "| DistillKit | no checkout given: --distillkit FOLDER |" in found.table()


def test_ours_is_what_the_definition_says(peers, monkeypatch):
    libraries, quantities = peers("libraries"), peers("quantities")
    monkeypatch.setattr(libraries, "MODULES", {})
    found, lines = quantities.measure(libraries.Libraries(None), rounds=1)
    (ours,) = found.values()
    assert ours["value"] == pytest.approx(1, rel=1e-5)
    assert ours["along"] == pytest.approx(1, rel=1e-5)
    assert ours["rest"] < 1e-5
    assert lines[-1].endswith("| less than 1e-5 | nothing |")


def test_another_quantity_is_told_from_a_factor(peers, monkeypatch):
    libraries, quantities = peers("libraries"), peers("quantities")
    others = [
        libraries.Contender("half", lambda batch: quantities.ours(batch) / 2),
        libraries.Contender("all", lambda batch: quantities.ours(batch._replace(labels=batch.labels.clamp(min=0)))),
    ]
    monkeypatch.setattr(libraries, "MODULES", {})
    monkeypatch.setattr(quantities, "CONTENDERS", others)
    found, _ = quantities.measure(libraries.Libraries(None), rounds=1)
    assert found["half"]["along"] == pytest.approx(0.5, rel=1e-5)
    assert found["half"]["rest"] < 1e-5
    assert found["all"]["rest"] > 0.1

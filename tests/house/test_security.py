"""Nothing that is loaded runs code, and nothing secret is written down."""

import ast
import json
import pickle
from pathlib import Path

import pytest
import torch

import hf_distill
from hf_distill.checkpoints import MANIFEST, write_manifest
from tests.tiny_models import model_for
from tests.tiny_trainers import trainer_for


PACKAGE = Path(hf_distill.__file__).parent
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "subprocess"}
CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "torch.hub.load", "os.system", "os.popen", "np.load"}
CALLS |= {"yaml.load", "yaml.full_load", "yaml.unsafe_load"}


def unsafe(source):
    """Imports, calls and arguments by which something that is loaded could run code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (name for name in names if name.split(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            if (name := ast.unparse(node.func)) in CALLS:
                yield name
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            yield from (name for name in ("trust_remote_code", "allow_pickle") if given.get(name, "False") != "False")


def test_nothing_loads_a_pickle_or_runs_code():
    found = {str(path): list(unsafe(path.read_text())) for path in PACKAGE.rglob("*.py")}
    assert len(found) > 50
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "planted",
    [
        "import pickle",
        "def f():\n    from dill import load",
        "import torch\ntorch.load('x', weights_only=False)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "eval('1')",
        "import yaml\nyaml.load(text, yaml.Loader)",
    ],
)
def test_finds_what_is_unsafe(planted):
    assert len(list(unsafe(planted))) == 1


class Intruder:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_the_intruder_would_come_in(tmp_path):
    torch.save(Intruder(tmp_path / "mark"), tmp_path / "file")
    torch.load(tmp_path / "file", weights_only=False)
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_runs_no_code(tmp_path, name):
    options = {"save_strategy": "steps", "save_steps": 1}
    trainer_for(tmp_path, **options, max_steps=1).train()
    folder = tmp_path / "checkpoint-1"
    torch.save(Intruder(tmp_path / "mark"), folder / name)
    write_manifest(folder)
    with pytest.raises(pickle.UnpicklingError):
        trainer_for(tmp_path, **options).train(resume_from_checkpoint=True)
    assert not (tmp_path / "mark").exists()


def test_a_teacher_of_pickled_weights_runs_no_code(tmp_path):
    model_for("single_label", 2).save_pretrained(tmp_path / "teacher")
    (tmp_path / "teacher" / "model.safetensors").unlink()
    torch.save({"bert.x": Intruder(tmp_path / "mark")}, tmp_path / "teacher" / "pytorch_model.bin")
    with pytest.raises(pickle.UnpicklingError):
        trainer_for(tmp_path, teacher=str(tmp_path / "teacher"))
    assert not (tmp_path / "mark").exists()


def test_a_teacher_with_code_of_its_own_is_refused(tmp_path):
    folder = tmp_path / "teacher"
    model_for("single_label", 2).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "intruder",
        "auto_map": {name: f"intruder.{name}" for name in ("AutoConfig", "AutoModel")},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "intruder.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'mark')!r}).touch()")
    with pytest.raises(ValueError, match="trust_remote_code"):
        trainer_for(tmp_path, teacher=str(folder))
    assert not (tmp_path / "mark").exists()


def test_no_secrets_and_no_paths(tmp_path, capfd, caplog):
    options = {"save_strategy": "steps", "save_steps": 1, "hub_token": "hf_secret"}
    trainer_for(tmp_path, **options).train()
    said = "".join(capfd.readouterr()) + caplog.text
    assert "loss" in said
    for text in (said, (tmp_path / "checkpoint-2" / MANIFEST).read_text()):
        assert "hf_secret" not in text and str(tmp_path) not in text

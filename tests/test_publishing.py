"""A student that was pushed is found again, alone, with its card."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from hf_distill import distillation_report
from tests.hub_stand_in import Repository, hub
from tests.report.tiny_reports import reported_trainer


ROOT = Path(__file__).parents[1]


def started(endpoint, home, *arguments):
    """A process that pushes or loads."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(ROOT / "tests" / "pushing.py"), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def run(endpoint, home, *arguments):
    with started(endpoint, home, *arguments) as process:
        _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said[-3000:]


@pytest.mark.slow
def test_a_pushed_student_loads_again(tmp_path):
    with hub() as (endpoint, files, tokens):
        run(endpoint, tmp_path / "one", "push", tmp_path)
        run(endpoint, tmp_path / "two", "load", tmp_path / "loaded.pt")
    torch.testing.assert_close(torch.load(tmp_path / "loaded.pt"), torch.load(tmp_path / "pushed.pt"))
    assert "Bearer hf_secret" in tokens
    own = {name for name in files if not name.startswith("report/")} - {".gitattributes"}
    assert own == {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {"report/report.html", "report/report.json", "report/metrics.png"} <= set(files)
    card = files["README.md"].decode()
    assert not any(word in card for word in ("hf_secret", str(tmp_path), "/tmp", os.sep + "home"))
    assert not any(b"hf_secret" in content for content in files.values())
    data = ModelCard(card).data
    assert data.license == "apache-2.0" and data.datasets == ["nyu-mll/glue"] and data.model_name == "student"
    assert {result.metric_type for result in data.eval_results} >= {"accuracy", "agreement", "accuracy_retention"}


@pytest.mark.slow
def test_a_push_that_is_killed_leaves_nothing_and_is_made_again(tmp_path, monkeypatch):
    """In the middle of its upload. A push is one commit, so the Hub has all of it or nothing."""
    running = []
    with hub() as (endpoint, files, _):
        with monkeypatch.context() as patch:
            patch.setattr(Repository, "do_PUT", lambda *_: running[0].kill())
            running.append(started(endpoint, tmp_path / "one", "push", tmp_path))
            running[0].communicate(timeout=240)
        assert running[0].returncode == -9
        assert files == {}
        run(endpoint, tmp_path / "one", "push", tmp_path)
        run(endpoint, tmp_path / "two", "load", tmp_path / "loaded.pt")
    torch.testing.assert_close(torch.load(tmp_path / "loaded.pt"), torch.load(tmp_path / "pushed.pt"))


def test_the_card_in_the_output_folder(tmp_path):
    trainer = reported_trainer(tmp_path / "my-student", eval_strategy="steps", eval_steps=1)
    trainer.train()
    trainer.create_model_card(language="en", tags="film")
    card = ModelCard.load(tmp_path / "my-student" / "README.md")
    assert card.data.language == "en" and {"film", "distillation"} <= set(card.data.tags)
    assert {result.metric_type for result in card.data.eval_results} == {"loss", "loss_labels", "loss_soft"}
    report = distillation_report(trainer, num_resamples=5, batch_sizes=())
    trainer.create_model_card(report=report)
    card = ModelCard.load(tmp_path / "my-student" / "README.md")
    accuracy = next(result for result in card.data.eval_results if result.metric_type == "accuracy")
    assert accuracy.metric_value == pytest.approx(report.metrics["accuracy"].models["student"].value)
    assert "### Distillation report" in card.text

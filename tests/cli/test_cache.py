"""A teacher's answers by one command, and a student of them by another."""

import json
import os
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file
from transformers import AutoModel

from hf_distill.cli import main
from hf_distill.processing import TASKS
from hf_distill.report import DistillationReport
from hf_distill.teachers import load_teacher
from tests.house.local_hub import put_model, put_tokenizer
from tests.tiny_jobs import QUICK, put_job


def put_student(folder, num_layers="1"):
    out = str(folder / "small")
    assert (
        main(["student", "--teacher", str(folder / "teacher"), "--num_hidden_layers", num_layers, "--output_dir", out])
        == 0
    )
    return ["--student", out]


@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=() if task == "text-classification" else pytest.mark.slow) for task in TASKS]
)
def test_a_student_of_the_answers_is_that_of_the_teacher(task, tmp_path, capsys):
    words = put_job(tmp_path, task)
    answers = str(tmp_path / "answers")
    epochs = ["--epochs", "2"] if task == "fill-mask" else []
    kept = ["--dtype", "float32", "--batch_size", "5", "--use_cpu", *epochs]
    assert main(["cache", *words, "--output_dir", answers, *kept]) == 0, capsys.readouterr().err
    assert f"{len(load_teacher(answers).cache)} rows" in capsys.readouterr().out
    teacher_alone = ["--alpha", "0", "--optim", "sgd", "--learning_rate", "10"]
    rest = [*words[2:], *put_student(tmp_path), *QUICK, "--max_steps", "2", *teacher_alone]
    outs = {name: tmp_path / f"student of {name}" for name in ("teacher", "answers")}
    for name, out in outs.items():
        said = ["--teacher", str(tmp_path / name), *rest, "--output_dir", str(out)]
        assert main(["distill", *said]) == 0, capsys.readouterr().err
    before, own, other = (load_file(out / "model.safetensors") for out in (tmp_path / "small", *outs.values()))
    moves = {name: (own[name] - before[name]).abs().max().item() for name in own}
    gap = max((own[name] - other[name]).abs().max().item() for name in own)
    assert gap <= 1e-3 * max(moves.values()) > 0
    report = DistillationReport.from_json((outs["answers"] / "report" / "report.json").read_text())
    assert report.models["teacher"].cost is None
    assert "times smaller" not in report.to_markdown()
    known = DistillationReport.from_json((outs["teacher"] / "report" / "report.json").read_text())
    assert report.metrics.keys() == known.metrics.keys()
    both = [name for name, metric in report.metrics.items() if "teacher" in metric.models]
    assert both[:1] == list(report.metrics)[:1]  # `compute_metrics` knows no teacher without a model
    for name in both:
        values = [each.metrics[name].models["teacher"].value for each in (report, known)]
        assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_the_likeliest_tokens_alone(tmp_path):
    words = put_job(tmp_path, "text-generation")
    answers = tmp_path / "answers"
    assert main(["cache", *words, "--output_dir", str(answers), "--top_k", "3", "--use_cpu"]) == 0
    assert load_teacher(answers).cache.manifest.answers["k"] == 3
    student = [*put_student(tmp_path), *QUICK, "--output_dir", str(tmp_path / "out")]
    assert main(["distill", "--teacher", str(answers), *words[2:], *student, "--debug"]) == 0
    drawn = [*words, "--output_dir", str(tmp_path / "drawn"), "--top_k", "3", "--drawn_at", "2", "--use_cpu"]
    assert main(["cache", *drawn]) == 0
    assert load_teacher(tmp_path / "drawn").cache.manifest.answers["drawn_at"] == 2.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "layers", "kept"),
    [
        (["patient_kd"], "2", ["--layers=0,1,2", "--pooled", "first"]),
        (["distilbert"], "1", ["--layers=-1"]),
        (["rkd"], "1", ["--layers=-1", "--pooled", "mean"]),
    ],
)
def test_layers_for_recipes_that_compare_them(recipe, layers, kept, tmp_path, capsys):
    task = "fill-mask" if recipe == ["distilbert"] else "text-classification"
    words = put_job(tmp_path, task)
    answers = tmp_path / "answers"
    epochs = ["--epochs", "2"] if task == "fill-mask" else []
    assert (
        main(["cache", *words, "--output_dir", str(answers), *kept, *epochs, "--dtype", "float32", "--use_cpu"]) == 0
    )
    rest = [*words[2:], *put_student(tmp_path, layers), *QUICK, "--max_steps", "2", "--recipe", *recipe]
    losses = {}
    for name in ("teacher", "answers"):
        out = tmp_path / f"student of {name}"
        said = ["--teacher", str(tmp_path / name), *rest, "--output_dir", str(out), "--logging_steps", "1"]
        assert main(["distill", *said, "--debug"]) == 0, capsys.readouterr().err
        state = json.loads((out / "trainer_state.json").read_text())
        losses[name] = [log["loss"] for log in state["log_history"] if "loss" in log]
    assert losses["answers"] == pytest.approx(losses["teacher"], rel=1e-4)


def test_a_recipe_that_compares_layers_which_are_not_kept(tmp_path, capsys):
    words = put_job(tmp_path, "text-classification")
    answers = str(tmp_path / "answers")
    assert main(["cache", *words, "--output_dir", answers, "--use_cpu"]) == 0
    rest = [
        *words[2:],
        *put_student(tmp_path),
        *QUICK,
        "--recipe",
        "patient_kd",
        "--output_dir",
        str(tmp_path / "out"),
    ]
    assert main(["distill", "--teacher", answers, *rest]) == 1
    assert "layers=" in capsys.readouterr().err


@pytest.mark.slow
def test_a_build_that_was_killed_goes_on(tmp_path):
    words = ["cache", *put_job(tmp_path, "text-classification"), "--batch_size", "1", "--use_cpu"]
    assert main([*words, "--output_dir", str(tmp_path / "whole")]) == 0
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "hf_distill", *words, "--output_dir", str(out)]
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **options)
    begun = tmp_path / "killed.partial"
    while running.poll() is None and not begun.exists():
        time.sleep(0.01)
    running.kill()
    running.wait()
    assert begun.exists() != out.exists()
    assert main([*words, "--output_dir", str(out)]) == 0
    files = [sorted(path.relative_to(folder) for path in folder.rglob("*")) for folder in (out, tmp_path / "whole")]
    assert files[0] == files[1]
    assert load_teacher(out).cache.manifest.differences(load_teacher(tmp_path / "whole").cache.manifest) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["distill", "--num_hidden_layers", "1"], "holds no weights to make a student of"),
        (["distill", "--student", "other"], "reads by another one, so none of its rows would be found"),
        (["shrink", "--budget", "2x smaller"], "which holds no weights, and a model is needed here"),
    ],
)
def test_what_answers_cannot_do(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = put_job(tmp_path, "text-classification")
    assert main(["cache", *known, "--output_dir", "answers", "--use_cpu"]) == 0
    tokenizer = put_tokenizer("other", ["words of its own"])
    put_model("other", AutoModel, vocab_size=len(tokenizer))
    assert main([*words, "--teacher", "answers", *known[2:], "--output_dir", "out", *QUICK]) == 1
    assert message in capsys.readouterr().err


def test_masks_of_each_epoch_are_asked_for(tmp_path, capsys):
    words = put_job(tmp_path, "fill-mask")
    assert main(["cache", *words, "--output_dir", str(tmp_path / "answers"), "--use_cpu"]) == 1
    assert "draws other masks in each epoch. Pass `epochs=`" in capsys.readouterr().err

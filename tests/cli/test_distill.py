"""The whole job by one command, for every task."""

import json
import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from hf_distill.cli import main
from hf_distill.processing import TASKS
from hf_distill.report import DistillationReport
from tests.slow_cases import slow_but
from tests.tiny_jobs import QUICK, put_job, put_teacher


SCORES = {
    "text-classification": "accuracy",
    "token-classification": "accuracy",
    "question-answering": "f1",
    "image-classification": "accuracy",
    "audio-classification": "accuracy",
    "text2text-generation": "perplexity",
    "fill-mask": "perplexity",
    "text-generation": "perplexity",
}


@pytest.mark.parametrize("task", slow_but(["text-classification"], TASKS))
def test_every_task(task, tmp_path, capsys):
    words = put_job(tmp_path, task)
    out = tmp_path / "out"
    student = ["--num_hidden_layers", "1"]
    assert main(["distill", *words, *student, "--output_dir", str(out), *QUICK]) == 0, capsys.readouterr()
    found = json.loads((out / "evidence.json").read_text())
    assert list(found) == ["teacher", "student before", "distilled"]
    assert all(np.isfinite(each["scores"][SCORES[task]]) for each in found.values())
    assert found["student before"]["scores"] != found["distilled"]["scores"]
    model = getattr(transformers, TASKS[task].auto_class).from_pretrained(out)
    assert model.num_parameters() == found["distilled"]["parameters"] < found["teacher"]["parameters"]
    getattr(transformers, TASKS[task].auto_processor).from_pretrained(out)
    assert "distilled" in capsys.readouterr().out
    report = DistillationReport.from_json((out / "report" / "report.json").read_text())
    assert {"teacher", "student"} <= report.models.keys() and report.num_rows > 0
    assert "</html>" in (out / "report" / "report.html").read_text()
    card = ModelCard.load(out / "README.md")
    assert "distillation" in card.data.tags and str(tmp_path) not in card.content


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}


def same_weights(folder, other):
    ends = [load_file(each / "model.safetensors") for each in (folder, other)]
    return all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def without_seconds(folder):
    found = json.loads((folder / "evidence.json").read_text())
    return {name: {key: value for key, value in each.items() if key != "seconds"} for name, each in found.items()}


@pytest.mark.slow
def test_a_folder_of_another_job_is_refused(tmp_path, capsys):
    words = [*put_job(tmp_path, "text-classification"), "--num_hidden_layers", "1", *QUICK]
    words = ["distill", *words, "--output_dir", str(tmp_path / "out")]
    assert main(words) == 0
    assert main(words) == 1
    assert "holds a job that was started before" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [(), ("--recipe", "distilbert")])
def test_killed_at_random_moments_it_comes_to_the_same_end(recipe, tmp_path):
    words = put_job(tmp_path, "text-classification")
    words = ["distill", *words, "--num_hidden_layers", "1", "--hidden_size", "8", *QUICK, "--baseline", *recipe]
    words += ["--max_steps", "300", "--save_steps", "7"]
    assert main([*words, "--output_dir", str(tmp_path / "whole")]) == 0
    out, moments = tmp_path / "killed", random.Random(0)
    command = [sys.executable, "-m", "hf_distill", *words, "--output_dir", str(out), "--resume"]
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": ENVIRONMENT}
    for _ in range(3):
        left = set(out.rglob("*"))
        running = subprocess.Popen(command, **options)
        while running.poll() is None and set(out.rglob("*")) <= left:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 1.0))  # it may be in the middle of a checkpoint
        running.kill()
        running.wait()
    assert "labels alone" not in json.loads((out / "evidence.json").read_text())  # there was something left to do
    assert subprocess.run(command, **options).returncode == 0
    assert without_seconds(out) == without_seconds(tmp_path / "whole")
    assert same_weights(out, tmp_path / "whole")
    assert same_weights(out / "baseline", tmp_path / "whole" / "baseline")


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_by_accelerate_launch(tmp_path):
    words = put_job(tmp_path, "text-classification")
    out = tmp_path / "out"
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    words = ["-m", "hf_distill", "distill", *words, "--num_hidden_layers", "1", *QUICK, "--output_dir", str(out)]
    done = subprocess.run([*launch, *words], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("The student is in") == 1
    assert list(json.loads((out / "evidence.json").read_text())) == ["teacher", "student before", "distilled"]


REAL = {  # data set: its task, and what has to be said
    "glue_sst2": ("text-classification", ()),
    "glue_qnli": ("text-classification", ("--train_split", "validation")),
    "glue_stsb": ("text-classification", ()),
    "ud_english_ewt_pos": ("token-classification", ()),
    "squad_v1_subset": ("question-answering", ()),
    "wikitext2_valid_test": ("fill-mask", ("--train_split", "validation", "--eval_split", "test")),
    "tiny_shakespeare": ("text-generation", ()),
    "scitldr_a": ("text2text-generation", ()),
    "multi30k": ("text2text-generation", ("--text_column", "en", "--label_column", "de")),
    "cifar10_subset": ("image-classification", ()),
    "free_spoken_digits": ("audio-classification", ("--sampling_rate", "8000")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_data(name, real_data, tmp_path):
    task, said = REAL[name]
    data = ["--dataset", str(real_data / name), *said, "--max_train_samples", "40", "--max_eval_samples", "20"]
    put_teacher(tmp_path / "body", task)
    classes = TASKS[task].labels_in_lists is not None
    auto_class = transformers.AutoModel if classes else getattr(transformers, TASKS[task].auto_class)
    auto_class.from_pretrained(tmp_path / "body").save_pretrained(tmp_path / "body")
    common = [*data, *QUICK]
    teacher, out = str(tmp_path / "teacher"), str(tmp_path / "out")
    assert main(["teacher", "--model", str(tmp_path / "body"), "--task", task, *common, "--output_dir", teacher]) == 0
    student = ["--num_hidden_layers", "1", "--output_dir", out]
    assert main(["distill", "--teacher", teacher, *common, *student]) == 0

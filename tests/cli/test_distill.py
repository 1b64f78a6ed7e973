"""The whole job by one command, for every task."""

import json

import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file

from hf_distill.cli import main
from hf_distill.processing import TASKS
from tests.tiny_jobs import QUICK, put_job


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


@pytest.mark.parametrize("task", TASKS)
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

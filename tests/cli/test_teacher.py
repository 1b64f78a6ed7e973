import pytest
from transformers import AutoModel, AutoModelForSequenceClassification

from hf_distill.cli import main
from tests.house.local_hub import put_model, put_tokenizer
from tests.tiny_jobs import QUICK, WORDS, put_job


@pytest.mark.slow
def test_a_model_without_a_head_becomes_a_teacher(tmp_path, capsys):
    words = put_job(tmp_path, "text-classification")
    body = tmp_path / "body"
    put_model(body, AutoModel, vocab_size=len(put_tokenizer(body, [" ".join(WORDS)])), max_position_embeddings=64)
    out = tmp_path / "out"
    task = ["--task", "text-classification"]
    assert main(["teacher", "--model", str(body), *task, *words[2:], "--output_dir", str(out), *QUICK]) == 0
    assert "fine-tuned" in capsys.readouterr().out
    teacher = AutoModelForSequenceClassification.from_pretrained(out)
    assert teacher.config.id2label == {0: "bad", 1: "good"}
    distilled = [*words[2:], "--output_dir", str(tmp_path / "student"), "--num_hidden_layers", "1", *QUICK]
    assert main(["distill", "--teacher", str(out), *distilled]) == 0

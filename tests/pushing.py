"""Run in a process of its own, whose Hub is HF_ENDPOINT: push a student, or load it and write down its answers.

python tests/pushing.py push FOLDER
python tests/pushing.py load FILE
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_distill import distillation_report
from tests.report.tiny_reports import reported_trainer
from tests.tiny_models import word_tokenizer


IDS = torch.tensor([[5, 6, 7, 8]])


def push(folder):
    tokenizer = word_tokenizer("[UNK]", "[PAD]", "a", "fine", "film")
    trainer = reported_trainer(
        Path(folder) / "output", processing_class=tokenizer, hub_model_id="user/student", hub_token="hf_secret"
    )
    (Path(folder) / "output").mkdir(exist_ok=True)
    (Path(folder) / "output" / "evidence.txt").write_text("not to be pushed")
    trainer.train()
    report = distillation_report(trainer, num_resamples=5, batch_sizes=(1,))
    trainer.push_to_hub(report=report, push_report=True, license="apache-2.0", dataset_tags="nyu-mll/glue")
    torch.save(trainer.model.eval()(IDS).logits, Path(folder) / "pushed.pt")


def load(file):
    model = AutoModelForSequenceClassification.from_pretrained("user/student").eval()
    tokenizer = AutoTokenizer.from_pretrained("user/student")
    assert tokenizer.convert_tokens_to_ids("film") == 4
    torch.save(model(IDS).logits, file)


if __name__ == "__main__":
    {"push": push, "load": load}[sys.argv[1]](sys.argv[2])

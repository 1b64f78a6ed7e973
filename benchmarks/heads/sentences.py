"""Heads that judge a sentence or a pair of them: SST-2, CoLA, QNLI (a class) and STS-B (a number)."""

from pathlib import Path
from typing import Any

import numpy as np
import pretrained
from datasets import Dataset
from harness import Job, read
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import matthews_corrcoef
from transformers import BertForSequenceClassification, DataCollatorWithPadding, PreTrainedModel

from hf_distill import DistillationTrainer


def _tokenized(rows: Dataset, columns: list[str], max_length: int, is_number: bool = False) -> Dataset:
    tokenizer = pretrained.tokenizer()

    def encode(row: dict[str, Any]) -> dict[str, Any]:
        encoded = tokenizer(*(row[column] for column in columns), truncation=True, max_length=max_length)
        label = float(row["label"]) / 5 if is_number else row["label"]
        return {**encoded, "label": label, "length": len(encoded["input_ids"])}

    return rows.map(encode, remove_columns=rows.column_names)


def _job(train: Dataset, evaluation: Dataset, columns: list[str], score: str, **settings: Any) -> Job:
    """A job over sentences.

    Args:
        score: "accuracy", "matthews" or "spearman".
        settings: of the job, in place of those here, and besides `num_labelled` rows for the students, `max_length`
            tokens a row.
    """
    num_labelled, max_length = settings.pop("num_labelled", None), settings.pop("max_length", 48)
    is_number = score == "spearman"
    teacher_rows = _tokenized(train, columns, max_length, is_number)
    measured = _tokenized(evaluation, columns, max_length, is_number).sort("length")

    def measure(trainer: DistillationTrainer) -> dict[str, float]:
        predictions = trainer.predict(measured)
        scores, labels = predictions.predictions, predictions.label_ids
        if is_number:
            return {
                "spearman": float(spearmanr(scores.squeeze(-1), labels).statistic),
                "pearson": float(pearsonr(scores.squeeze(-1), labels).statistic),
            }
        chosen = scores.argmax(-1)
        return {
            "accuracy": float(np.mean(chosen == labels)),
            "matthews": float(matthews_corrcoef(labels, chosen)),
        }

    def teacher() -> PreTrainedModel:
        return pretrained.encoder(BertForSequenceClassification, num_labels=1 if is_number else 2)

    labelled = teacher_rows if num_labelled is None else teacher_rows.select(range(num_labelled))
    return Job(
        head="RegressionHead" if is_number else "SingleLabelHead",
        score=score,
        teacher=teacher,
        teacher_rows=teacher_rows,
        rows=labelled,
        unlabelled_rows=None if num_labelled is None else teacher_rows.remove_columns("label"),
        measure=measure,
        arguments={"train_sampling_strategy": "group_by_length"},
        trainer={"data_collator": DataCollatorWithPadding(pretrained.tokenizer())},
        **{
            "student": pretrained.half,
            "models": pretrained.MODELS_OF_HALF,
            "teacher_rate": 1e-4,
            "rates": (1e-4, 2e-4),
            "teacher_steps": 250,
            "steps": 120,
            **settings,
        },
    )


def sst2(data: Path) -> Job:
    return _job(
        read(data, "glue_sst2", "train", 8000),
        read(data, "glue_sst2", "validation"),
        ["sentence"],
        "accuracy",
        data="SST-2, 1,000 labelled rows (teacher: 8,000; the third student: those without labels)",
        num_labelled=1000,
        student=lambda _: pretrained.encoder(BertForSequenceClassification, pretrained.STUDENT_LAYERS, num_labels=2),
        models=pretrained.models(),
        rates=(2e-4, 4e-4),
    )


def cola(data: Path) -> Job:
    return _job(
        read(data, "glue_cola", "train"),
        read(data, "glue_cola", "validation"),
        ["sentence"],
        "matthews",
        data="CoLA, 8,551 rows",
        teacher_steps=700,
        steps=200,
        max_length=32,
    )


def qnli(data: Path) -> Job:
    rows = read(data, "glue_qnli", "validation").train_test_split(test_size=963, seed=0)
    return _job(
        rows["train"],
        rows["test"],
        ["question", "sentence"],
        "accuracy",
        data="QNLI, validation file split into 4,500 rows to train and 963 to measure",
        steps=250,
        max_length=64,
    )


def stsb(data: Path) -> Job:
    return _job(
        read(data, "glue_stsb", "train"),
        read(data, "glue_stsb", "validation"),
        ["sentence1", "sentence2"],
        "spearman",
        data="STS-B without MSRpar and MSRvid, 3,749 rows",
        steps=400,
        max_length=64,
    )

"""Heads that label every token: parts of speech of UD English EWT."""

from pathlib import Path
from typing import Any

import numpy as np
import pretrained
from datasets import Dataset
from harness import Job, read
from transformers import BertForTokenClassification, DataCollatorForTokenClassification

from hf_distill import DistillationTrainer


IGNORED = -100
NUM_LABELLED = 500


def _tokenized(rows: Dataset) -> Dataset:
    """Word pieces; the first one of a word has its tag."""
    tokenizer = pretrained.tokenizer()

    def encode(row: dict[str, Any]) -> dict[str, Any]:
        encoded = tokenizer(row["tokens"], is_split_into_words=True, truncation=True, max_length=64)
        words = encoded.word_ids()
        is_first = [word is not None and word != before for word, before in zip(words, [None, *words], strict=False)]
        labels = [row["upos"][word] if first else IGNORED for word, first in zip(words, is_first, strict=True)]
        return {**encoded, "labels": labels, "length": len(labels)}

    return rows.map(encode, remove_columns=rows.column_names)


def ewt(data: Path) -> Job:
    train, evaluation = (
        read(data, "ud_english_ewt_pos", "train", 12_544),
        read(data, "ud_english_ewt_pos", "validation", 1000),
    )
    tags = train.features["upos"].feature.names
    teacher_rows, measured = _tokenized(train), _tokenized(evaluation).sort("length")

    def measure(trainer: DistillationTrainer) -> dict[str, float]:
        predictions = trainer.predict(measured)
        is_tagged = predictions.label_ids != IGNORED
        right = predictions.predictions.argmax(-1) == predictions.label_ids
        return {"token accuracy": float(np.mean(right[is_tagged]))}

    def model(layers: tuple[int, ...] | None = None) -> BertForTokenClassification:
        return pretrained.encoder(
            BertForTokenClassification,
            layers,
            id2label=dict(enumerate(tags)),
            label2id={tag: index for index, tag in enumerate(tags)},
        )

    return Job(
        head="TokenClassificationHead",
        data=f"UD English EWT, {NUM_LABELLED} tagged sentences (teacher: 12,544; the third student: those without "
        "tags)",
        score="token accuracy",
        teacher=model,
        student=lambda _: model(pretrained.STUDENT_LAYERS),
        teacher_rows=teacher_rows,
        rows=teacher_rows.select(range(min(NUM_LABELLED, len(teacher_rows)))),
        unlabelled_rows=teacher_rows.remove_columns("labels"),
        measure=measure,
        models=pretrained.models(),
        teacher_rate=3e-4,
        teacher_steps=250,
        steps=90,
        rates=(6e-4, 1.2e-3),
        arguments={"train_sampling_strategy": "group_by_length"},
        trainer={"data_collator": DataCollatorForTokenClassification(pretrained.tokenizer())},
    )

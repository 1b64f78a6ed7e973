"""Heads that choose where an answer starts and ends: a subset of SQuAD."""

from pathlib import Path
from typing import Any

import numpy as np
import pretrained
from datasets import Dataset
from harness import Job, read
from scores import answer_scores
from transformers import BertForQuestionAnswering, DataCollatorWithPadding

from hf_distill import DistillationTrainer


MAX_LENGTH = 144
MAX_ANSWER_TOKENS = 16


def _tokenized(rows: Dataset) -> Dataset:
    """Question and context in one row of tokens, where they fit; `offsets` are those of the context's characters."""
    tokenizer = pretrained.tokenizer()

    def encode(row: dict[str, Any]) -> dict[str, Any]:
        encoded = tokenizer(row["question"], row["context"])
        begin = row["answers"]["answer_start"][0]
        end = begin + len(row["answers"]["text"][0])
        spans = [
            encoded.token_to_chars(index) if sequence == 1 else None
            for index, sequence in enumerate(encoded.sequence_ids())
        ]
        return {
            **encoded,
            "start_positions": encoded.char_to_token(begin, sequence_index=1),
            "end_positions": encoded.char_to_token(end - 1, sequence_index=1),
            "offsets": [[-1, -1] if span is None else [span.start, span.end] for span in spans],
            "length": len(spans),
        }

    return rows.map(encode).filter(
        lambda row: (
            row["length"] <= MAX_LENGTH and row["start_positions"] is not None and row["end_positions"] is not None
        )
    )


def best_span(starts: np.ndarray, ends: np.ndarray, is_context: np.ndarray) -> tuple[int, int]:
    """The likeliest pair of a start and an end of the context, the end neither before it nor far behind."""
    scores = np.where(np.outer(is_context, is_context), starts[:, None] + ends[None, :], -np.inf)
    near = np.triu(np.ones_like(scores, dtype=bool)) & ~np.triu(np.ones_like(scores, dtype=bool), MAX_ANSWER_TOKENS)
    return np.unravel_index(np.where(near, scores, -np.inf).argmax(), scores.shape)


def squad(data: Path) -> Job:
    train = _tokenized(read(data, "squad_v1_subset", "train"))
    measured = _tokenized(read(data, "squad_v1_subset", "validation")).sort("length")
    columns = ["input_ids", "token_type_ids", "attention_mask", "start_positions", "end_positions", "length"]
    rows, inputs = train.select_columns(columns), measured.select_columns(columns[:-1])
    num_rows, num_measured = len(rows), len(measured)

    def measure(trainer: DistillationTrainer) -> dict[str, float]:
        starts, ends = trainer.predict(inputs).predictions
        scores = []
        for row, start, end in zip(measured, starts, ends, strict=True):
            offsets = np.array(row["offsets"])
            size = len(offsets)
            first, last = best_span(start[:size], end[:size], offsets[:, 0] >= 0)
            scores.append(answer_scores(row["context"][offsets[first, 0] : offsets[last, 1]], row["answers"]["text"]))
        exact, f1 = np.mean(scores, axis=0)
        return {"F1": 100 * float(f1), "exact match": 100 * float(exact)}

    return Job(
        head="QuestionAnsweringHead",
        data=f"SQuAD subset, rows of up to {MAX_LENGTH} tokens: {num_rows:,}, measured on {num_measured} of XQuAD",
        score="F1",
        teacher=lambda: pretrained.encoder(BertForQuestionAnswering),
        student=pretrained.half,
        teacher_rows=rows,
        rows=rows,
        measure=measure,
        models=pretrained.MODELS_OF_HALF,
        teacher_rate=2e-4,
        teacher_steps=350,
        steps=150,
        rates=(1e-4, 2e-4),
        batch_size=16,
        arguments={"train_sampling_strategy": "group_by_length"},
        trainer={"data_collator": DataCollatorWithPadding(pretrained.tokenizer())},
    )

"""Heads that write down a sound, frame by frame: numbers made of spoken digits."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from harness import Job, read
from scores import edits
from sound import log_mel
from torch import Tensor
from transformers import PreTrainedModel, Wav2Vec2BertConfig, Wav2Vec2BertForCTC

from hf_distill import DistillationTrainer


BLANK = 10
"""After the ten digits, each of which is a token and a character."""
DIGITS = (2, 4)
"""The fewest and the most digits of a number."""
STACKED = 2
"""Frames of 10 ms that the model reads as one."""


def numbers(recordings: Dataset, num_rows: int) -> Dataset:
    """Recordings of one speaker, drawn with a fixed seed, one after the other."""
    generator = np.random.default_rng(0)
    of_speaker: dict[str, list[int]] = {}
    for index, speaker in enumerate(recordings["speaker"]):
        of_speaker.setdefault(speaker, []).append(index)
    speakers = sorted(of_speaker)
    sounds, digits = recordings["audio"], recordings["label"]

    def row() -> dict[str, Any]:
        own = of_speaker[speakers[generator.integers(len(speakers))]]
        chosen = [
            own[index] for index in generator.integers(len(own), size=generator.integers(DIGITS[0], DIGITS[1] + 1))
        ]
        mels = log_mel(np.concatenate([sounds[index] for index in chosen]))
        mels = mels[: len(mels) // STACKED * STACKED].reshape(-1, STACKED * mels.shape[1])
        return {"input_features": mels, "labels": [digits[index] for index in chosen], "length": len(mels)}

    return Dataset.from_list([row() for _ in range(num_rows)])


def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Rows padded to the longest one, labels by −100."""

    def padded(name: str, value: float) -> Tensor:
        tensors = [torch.tensor(row[name]) for row in rows]
        return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)

    lengths = torch.tensor([len(row["input_features"]) for row in rows])
    return {
        "input_features": padded("input_features", 0.0),
        "attention_mask": (torch.arange(lengths.max()) < lengths[:, None]).long(),
        "labels": padded("labels", -100),
    }


def collapsed(tokens: np.ndarray) -> list[int]:
    """The digits that a row of frames stands for: repeated ones are one, blanks are none."""
    return [token for token, before in zip(tokens, [BLANK, *tokens[:-1]], strict=True) if token not in (before, BLANK)]


def _model(width: int, layers: int) -> PreTrainedModel:
    return Wav2Vec2BertForCTC(
        Wav2Vec2BertConfig(
            vocab_size=11,
            pad_token_id=BLANK,
            feature_projection_input_dim=STACKED * 40,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=width // 32,
            intermediate_size=2 * width,
            conv_depthwise_kernel_size=7,
            hidden_dropout=0.0,
            attention_dropout=0.0,
            activation_dropout=0.0,
            feat_proj_dropout=0.0,
            final_dropout=0.0,
            layerdrop=0.0,
            apply_spec_augment=False,
            ctc_loss_reduction="mean",
            ctc_zero_infinity=True,
        )
    )


def spoken_numbers(data: Path) -> Job:
    rows = numbers(read(data, "free_spoken_digits", "train"), 3000)
    measured = numbers(read(data, "free_spoken_digits", "test"), 300)
    frames = measured["length"]

    def measure(trainer: DistillationTrainer) -> dict[str, float]:
        logits = trainer.predict(measured).predictions
        answers = [collapsed(row[:length].argmax(-1)) for row, length in zip(logits, frames, strict=True)]
        wrong = sum(edits(answer, true) for answer, true in zip(answers, measured["labels"], strict=True))
        return {"character error rate": float(100 * wrong / sum(map(len, measured["labels"])))}

    return Job(
        head="CTCHead",
        data="Free Spoken Digits, 3,000 numbers of 2 to 4 digits of one speaker, measured on 300",
        score="character error rate",
        lower_is_better=True,
        teacher=lambda: _model(96, 3),
        student=lambda _: _model(32, 1),
        teacher_rows=rows,
        rows=rows,
        measure=measure,
        models="Wav2Vec2-BERT from scratch, 3 layers of width 96; student 1 of 32; log-mel frames of 20 ms",
        teacher_rate=2e-3,
        teacher_steps=500,
        steps=300,
        rates=(4e-3, 8e-3),
        trainer={"data_collator": collate},
    )

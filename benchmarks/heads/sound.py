"""Heads that name what was said: spoken digits."""

from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from harness import Job, read
from transformers import ASTConfig, ASTForAudioClassification, PreTrainedModel
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from hf_distill import DistillationTrainer


SAMPLING_RATE = 8000
FRAME, HOP, NUM_MELS = 256, 80, 40
NUM_FRAMES = 96
"""Of 10 ms; longer recordings are cut, shorter ones filled with silence."""
NUM_LABELLED = 500
SILENCE = -6.0


def log_mel(samples: Any) -> np.ndarray:
    """`(frames, mels)`: the log-mel spectrogram of a recording, about 0 on average."""
    filters = mel_filter_bank(1 + FRAME // 2, NUM_MELS, 50.0, SAMPLING_RATE / 2, SAMPLING_RATE)
    wave = np.asarray(samples, dtype=np.float64) / 32768
    wave = np.pad(wave, (0, max(0, FRAME - len(wave))))
    energies = spectrogram(
        wave, window_function(FRAME, "hann"), FRAME, HOP, mel_filters=filters, mel_floor=1e-6, log_mel="log10"
    )
    return (energies.T + 1.0).astype(np.float32)


def _features(rows: Dataset) -> Dataset:
    features = np.full((len(rows), NUM_FRAMES, NUM_MELS), SILENCE, dtype=np.float32)
    for index, samples in enumerate(rows["audio"]):
        mels = log_mel(samples)[:NUM_FRAMES]
        features[index, : len(mels)] = mels
    return Dataset.from_dict({"input_values": features, "label": rows["label"]}).with_format("torch")


def _model(width: int, layers: int) -> PreTrainedModel:
    return ASTForAudioClassification(
        ASTConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=width // 32,
            intermediate_size=2 * width,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            patch_size=8,
            frequency_stride=8,
            time_stride=8,
            max_length=NUM_FRAMES,
            num_mel_bins=NUM_MELS,
            num_labels=10,
        )
    )


def digits(data: Path) -> Job:
    rows, measured = (_features(read(data, "free_spoken_digits", split, 2700)) for split in ("train", "test"))

    def measure(trainer: DistillationTrainer) -> dict[str, float]:
        predictions = trainer.predict(measured)
        return {"accuracy": float(np.mean(predictions.predictions.argmax(-1) == predictions.label_ids))}

    return Job(
        head="SingleLabelHead, sound",
        data=f"Free Spoken Digits, {NUM_LABELLED} labelled recordings (teacher: 2,700; the third student: those "
        "without labels), measured on 300",
        score="accuracy",
        teacher=lambda: _model(128, 3),
        student=lambda _: _model(32, 1),
        teacher_rows=rows,
        rows=rows.select(range(min(NUM_LABELLED, len(rows)))),
        unlabelled_rows=rows.remove_columns("label"),
        measure=measure,
        models="Audio Spectrogram Transformer from scratch, 3 layers of width 128; student 1 of 32",
        teacher_rate=1e-3,
        teacher_steps=400,
        steps=300,
        rates=(4e-3, 8e-3),
    )

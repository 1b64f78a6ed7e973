"""Heads that name what is in a picture: a subset of CIFAR-10, where a convolutional teacher teaches a transformer."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from harness import Job, read
from torch import Tensor
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

from hf_distill import DistillationTrainer


MEAN, DEVIATION = 0.47, 0.25


def _pictures(rows: Dataset) -> Dataset:
    pixels = np.stack([np.asarray(picture) for picture in rows["img"]]).transpose(0, 3, 1, 2)
    return Dataset.from_dict({"pixel_values": pixels, "label": rows["label"]}).with_format("torch")


def collate(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Pictures as numbers around 0."""
    pixels = torch.stack([row["pixel_values"] for row in rows]).float() / 255
    return {"pixel_values": (pixels - MEAN) / DEVIATION, "labels": torch.stack([row["label"] for row in rows])}


def cifar10(data: Path) -> Job:
    train, evaluation = read(data, "cifar10_subset", "train"), read(data, "cifar10_subset", "test")
    names = train.features["label"].names
    classes: dict[str, Any] = {
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
    }
    rows, measured = _pictures(train), _pictures(evaluation)

    def measure(trainer: DistillationTrainer) -> dict[str, float]:
        predictions = trainer.predict(measured)
        return {"accuracy": float(np.mean(predictions.predictions.argmax(-1) == predictions.label_ids))}

    def teacher() -> ResNetForImageClassification:
        return ResNetForImageClassification(
            ResNetConfig(
                embedding_size=32, hidden_sizes=[64, 128, 256], depths=[2, 2, 2], layer_type="basic", **classes
            )
        )

    def student() -> ViTForImageClassification:
        return ViTForImageClassification(
            ViTConfig(
                image_size=32,
                patch_size=4,
                hidden_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=128,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                **classes,
            )
        )

    return Job(
        head="SingleLabelHead, images",
        data="CIFAR-10, 10,000 pictures, measured on 2,000",
        score="accuracy",
        teacher=teacher,
        student=lambda _: student(),
        teacher_rows=rows,
        rows=rows,
        measure=measure,
        models="ResNet from scratch, 6 blocks of width 64 to 256; student: ViT, 2 layers of width 64, patches of 4",
        teacher_rate=2e-3,
        teacher_steps=500,
        steps=300,
        rates=(2e-3, 4e-3),
        batch_size=64,
        trainer={"data_collator": collate},
    )

"""Heads that find objects in a picture: blood cells (BCCD)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from harness import Job, read
from scores import are_found, average_precision
from torch import Tensor, nn
from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig
from transformers.image_transforms import center_to_corners_format
from transformers.loss.loss_for_object_detection import box_iou

from hf_distill import DistillationTrainer, recipes


WIDTH, HEIGHT = 128, 96
OVERLAP = 0.5
"""The intersection over union from which on a box is found."""


def _pictures(rows: Dataset) -> list[dict[str, Any]]:
    """Pixels from 0 to 1 and, in parts of width and height, the boxes as centre and size."""
    pictures = []
    for row in rows:
        picture = row["image"].convert("RGB").resize((WIDTH, HEIGHT))
        boxes = torch.tensor(row["objects"]["bbox"]) / torch.tensor([row["width"], row["height"]] * 2)
        pictures.append(
            {
                "pixel_values": torch.tensor(np.asarray(picture)).permute(2, 0, 1) / 255,
                "labels": {
                    "class_labels": torch.tensor(row["objects"]["category"]),
                    "boxes": torch.cat([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], dim=1),
                },
            }
        )
    return pictures


def _mirrored(picture: dict[str, Any], axis: int) -> dict[str, Any]:
    """The picture seen in a mirror: axis 0 puts the right to the left, axis 1 the top to the bottom."""
    boxes = picture["labels"]["boxes"].clone()
    boxes[:, axis] = 1 - boxes[:, axis]
    return {
        "pixel_values": picture["pixel_values"].flip(-1 - axis),
        "labels": {**picture["labels"], "boxes": boxes},
    }


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
        "labels": [row["labels"] for row in rows],
    }


def _model(names: list[str], width: int, stages: list[int], depth: int, layers: int) -> RTDetrForObjectDetection:
    model = RTDetrForObjectDetection(
        RTDetrConfig(
            backbone_config=RTDetrResNetConfig(
                embedding_size=stages[0],
                hidden_sizes=stages,
                depths=[depth] * 4,
                layer_type="basic",
                out_features=["stage2", "stage3", "stage4"],
            ),
            freeze_backbone_batch_norms=False,
            encoder_in_channels=stages[1:],
            encoder_hidden_dim=width,
            encoder_ffn_dim=2 * width,
            encoder_attention_heads=width // 16,
            hidden_expansion=0.5,
            d_model=width,
            decoder_in_channels=[width] * 3,
            decoder_ffn_dim=2 * width,
            decoder_attention_heads=width // 16,
            decoder_layers=layers,
            num_queries=50,
            num_denoising=50,
            initializer_range=0.05,
            id2label=dict(enumerate(names)),
            label2id={name: index for index, name in enumerate(names)},
        )
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # the model's own start of 0 ± 0.05 is made for loading weights over it
    return model


@torch.inference_mode()
def _answers(model: RTDetrForObjectDetection, pictures: list[dict[str, Any]]) -> list[tuple[Tensor, Tensor]]:
    """For each picture, the boxes as corners `(Q, 4)` and the score of each class `(Q, C)`."""
    answers: list[tuple[Tensor, Tensor]] = []
    model.eval()
    for start in range(0, len(pictures), 32):
        outputs = model(collate(pictures[start : start + 32])["pixel_values"])
        answers += zip(center_to_corners_format(outputs.pred_boxes), outputs.logits.sigmoid(), strict=True)
    return answers


def precisions(answers: list[tuple[Tensor, Tensor]], pictures: list[dict[str, Any]], num_classes: int) -> list[float]:
    """The average precision of each class. Every box is an answer for every class, by its score of that class."""
    found = []
    for class_index in range(num_classes):
        scores, hits, num_true = [], [], 0
        for (boxes, class_scores), picture in zip(answers, pictures, strict=True):
            labels = picture["labels"]
            true = center_to_corners_format(labels["boxes"][labels["class_labels"] == class_index])
            order = class_scores[:, class_index].argsort(descending=True)
            scores += class_scores[order, class_index].tolist()
            hits += are_found(box_iou(boxes[order], true)[0].numpy(), OVERLAP)
            num_true += len(true)
        found.append(average_precision(scores, hits, num_true))
    return found


def blood_cells(data: Path) -> Job:
    train = read(data, "bccd_detection", "train")
    names = train.features["objects"]["category"].feature.names
    rows = _pictures(train)
    rows += [_mirrored(picture, axis=0) for picture in rows]
    rows += [_mirrored(picture, axis=1) for picture in rows]
    measured = _pictures(concatenate_datasets([read(data, "bccd_detection", name) for name in ("validation", "test")]))

    def measure(trainer: DistillationTrainer) -> dict[str, float]:
        of_classes = precisions(_answers(trainer.model, measured), measured, len(names))
        return {"mAP at IoU 0.5": float(np.mean(of_classes)), **dict(zip(names, of_classes, strict=True))}

    return Job(
        head="FocalObjectDetectionHead",
        data=f"BCCD blood cells, {len(train)} pictures and their mirror images, measured on {len(measured)}",
        score="mAP at IoU 0.5",
        teacher=lambda: _model(names, width=64, stages=[16, 32, 64, 128], depth=1, layers=3),
        student=lambda _: _model(names, width=32, stages=[8, 16, 16, 32], depth=1, layers=1),
        teacher_rows=rows,
        rows=rows,
        measure=measure,
        models=f"RT-DETR from scratch on pictures of {WIDTH} x {HEIGHT}, width 64, 3 decoder layers; "
        "student width 32, 1",
        teacher_rate=2e-3,
        teacher_steps=600,
        steps=200,
        rates=(2e-3, 4e-3),
        batch_size=16,
        bf16=False,
        arguments={"max_grad_norm": 0.1},
        objective=recipes.hungarian_matching,
        trainer={"data_collator": collate},
    )

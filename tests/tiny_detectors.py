"""Tiny real detectors, and images of unequal size with objects in them."""

from typing import Any

import torch
from torch import Tensor
from transformers import (
    ConditionalDetrConfig,
    ConditionalDetrForObjectDetection,
    DabDetrConfig,
    DabDetrForObjectDetection,
    DeformableDetrConfig,
    DeformableDetrForObjectDetection,
    Deimv2Config,
    Deimv2ForObjectDetection,
    DetrConfig,
    DetrForObjectDetection,
    DFineConfig,
    DFineForObjectDetection,
    HGNetV2Config,
    LwDetrConfig,
    LwDetrForObjectDetection,
    LwDetrViTConfig,
    PreTrainedModel,
    ResNetConfig,
    RfDetrConfig,
    RfDetrDinov2Config,
    RfDetrForObjectDetection,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrResNetConfig,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
    TableTransformerConfig,
    TableTransformerForObjectDetection,
    YolosConfig,
    YolosForObjectDetection,
    set_seed,
)


SIZE = 64
NUM_QUERIES = 4
NO_OBJECT = ("detr", "table_transformer", "yolos")
GROUPED = ("lw_detr", "rf_detr")
DENOISING = ("rt_detr", "rt_detr_v2", "d_fine", "deimv2")
FOCAL = ("conditional_detr", "dab_detr", "deformable_detr", *DENOISING, *GROUPED)
READS_MASK = ("detr", "table_transformer", "conditional_detr", "dab_detr", "deformable_detr")
"""Those that look away from the padding of an image."""


def detector(kind: str, layers: int = 1, **config: Any) -> PreTrainedModel:
    """A detector without dropout, its weights large enough that its boxes and classes differ by much."""
    set_seed(layers)
    model_class, config_class, sizes = _KINDS[kind](layers)
    common = {"num_labels": 3, "num_queries": NUM_QUERIES, "dropout": 0.0, **sizes}
    if kind == "yolos":
        common = {"num_labels": 3, **sizes}
    model = model_class(config_class(**{**common, **config}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2 if "bbox" in name else 0.4)
    return model


def _resnet(config_class: Any = ResNetConfig, stages: int = 1) -> Any:
    names = ["stage2", "stage3", "stage4"][:stages]
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 16], "depths": [1] * 4, "layer_type": "basic"}
    return config_class(**sizes, out_features=names)


def _encoder_decoder(width: int, layers: int) -> dict[str, Any]:
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {"layers": layers, "attention_heads": 2, "ffn_dim": 16}.items()
    }
    return {"d_model": width, "use_timm_backbone": False, "use_pretrained_backbone": False, **sides}


def _detr(layers: int) -> dict[str, Any]:
    return {"backbone_config": _resnet(), **_encoder_decoder(16, layers)}


def _deformable(layers: int) -> dict[str, Any]:
    sizes = {"backbone_config": _resnet(stages=3), "num_feature_levels": 3}
    return {**_encoder_decoder(32, layers + 1), **sizes, "encoder_n_points": 2, "decoder_n_points": 2}


def _rt_detr(layers: int) -> dict[str, Any]:
    return {
        **_encoder_decoder(32, layers + 1),
        "backbone_config": _resnet(RTDetrResNetConfig, stages=3),
        "encoder_hidden_dim": 32,
        "encoder_in_channels": [8, 8, 16],
        "decoder_in_channels": [32, 32, 32],
        "decoder_n_points": 2,
        "num_denoising": 4,
    }


def _d_fine(layers: int) -> dict[str, Any]:
    sizes = {
        **{f"stage_{side}_channels": [8] * 4 for side in ("in", "mid")},
        **{f"stage_{name}": [1] * 4 for name in ("num_blocks", "numb_of_layers")},
        **{"hidden_sizes": [8, 8, 8, 16], "stage_out_channels": [8, 8, 8, 16], "stem_channels": [3, 8, 8]},
    }
    backbone = HGNetV2Config(**sizes, out_features=["stage2", "stage3", "stage4"])
    return {**_rt_detr(layers), "backbone_config": backbone, "decoder_n_points": [2, 2, 2]}


def _vit(config_class: Any, **changes: Any) -> Any:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIZE, "patch_size": 8}
    return config_class(**sizes, num_windows=4 if config_class is LwDetrViTConfig else 2, out_indices=[2], **changes)


def _grouped(layers: int, backbone: Any) -> dict[str, Any]:
    neck = {"projector_scale_factors": [1.0], "hidden_expansion": 0.5, "c2f_num_blocks": 1}
    heads = {"decoder_self_attention_heads": 2, "decoder_cross_attention_heads": 2, "decoder_n_points": 2}
    sizes = {"d_model": 16, "decoder_ffn_dim": 16, "decoder_layers": layers, "group_detr": 3}
    return {"backbone_config": backbone, **neck, **heads, **sizes}


def _yolos(layers: int) -> dict[str, Any]:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "initializer_range": 0.3}
    images = {"image_size": [SIZE, SIZE], "patch_size": 8, "num_detection_tokens": NUM_QUERIES}
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return {**sizes, **images, **no_dropout, "num_hidden_layers": layers}


def _dab_detr(layers: int) -> dict[str, Any]:
    sizes = _detr(layers)
    return {**sizes, "hidden_size": sizes.pop("d_model")}


_KINDS: dict[str, Any] = {
    "detr": lambda layers: (DetrForObjectDetection, DetrConfig, _detr(layers)),
    "table_transformer": lambda layers: (TableTransformerForObjectDetection, TableTransformerConfig, _detr(layers)),
    "yolos": lambda layers: (YolosForObjectDetection, YolosConfig, _yolos(layers)),
    "conditional_detr": lambda layers: (ConditionalDetrForObjectDetection, ConditionalDetrConfig, _detr(layers)),
    "dab_detr": lambda layers: (DabDetrForObjectDetection, DabDetrConfig, _dab_detr(layers)),
    "deformable_detr": lambda layers: (DeformableDetrForObjectDetection, DeformableDetrConfig, _deformable(layers)),
    "rt_detr": lambda layers: (RTDetrForObjectDetection, RTDetrConfig, _rt_detr(layers)),
    "rt_detr_v2": lambda layers: (RTDetrV2ForObjectDetection, RTDetrV2Config, _rt_detr(layers)),
    "d_fine": lambda layers: (DFineForObjectDetection, DFineConfig, _d_fine(layers)),
    "deimv2": lambda layers: (Deimv2ForObjectDetection, Deimv2Config, _d_fine(layers)),
    "lw_detr": lambda layers: (
        LwDetrForObjectDetection,
        LwDetrConfig,
        _grouped(layers, _vit(LwDetrViTConfig, window_block_indices=[0], pretrain_image_size=SIZE)),
    ),
    "rf_detr": lambda layers: (
        RfDetrForObjectDetection,
        RfDetrConfig,
        _grouped(layers, _vit(RfDetrDinov2Config)),
    ),
}


def images_with_objects(number: int = 4) -> list[dict[str, Any]]:
    """Images of unequal size. The third one holds no object."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for index in range(number):
        num_objects = (1, 2, 0, 3)[index % 4]
        centres = 0.3 + 0.4 * torch.rand(num_objects, 2, generator=generator)
        sizes = 0.1 + 0.4 * torch.rand(num_objects, 2, generator=generator)
        classes = torch.arange(num_objects) % 3
        shape = (3, SIZE - 4 * (index % 2), SIZE - 8 * (index % 3))
        labels = {"class_labels": classes, "boxes": torch.cat((centres, sizes), dim=1)}
        rows.append({"pixel_values": torch.randn(shape, generator=generator), "labels": labels})
    return rows


class ImageCollator:
    """Pads images on the right and below to one size, so that an image is padded alike in every batch.

    Args:
        kind: the detector; only some read a mask of what is image.
        dtype: of the images.
    """

    def __init__(self, kind: str, dtype: torch.dtype = torch.float32) -> None:
        self.reads_mask = kind in READS_MASK
        self.dtype = dtype

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        images = [row["pixel_values"].to(self.dtype) for row in rows]
        batch: dict[str, Any] = {"pixel_values": torch.stack([_padded(image) for image in images])}
        if self.reads_mask:
            batch["pixel_mask"] = torch.stack([_padded(torch.ones_like(image[0])) for image in images]).long()
        if "labels" in rows[0]:
            batch["labels"] = [dict(row["labels"]) for row in rows]
        return batch


def _padded(image: Tensor) -> Tensor:
    return torch.nn.functional.pad(image, (0, SIZE - image.shape[-1], 0, SIZE - image.shape[-2]))

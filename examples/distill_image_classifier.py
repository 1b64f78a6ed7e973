"""A vision transformer teaches a smaller one to read handwritten digits: the 1,797 scans that scikit-learn carries.

    python examples/distill_image_classifier.py

The two need not be of one architecture. Classes are matched by their names.
"""

import numpy as np
from comparison import ExampleArguments, compare
from datasets import Dataset
from sklearn.datasets import load_digits
from transformers import (
    EvalPrediction,
    HfArgumentParser,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)


LABELS = {
    "id2label": {digit: str(digit) for digit in range(10)},
    "label2id": {str(digit): digit for digit in range(10)},
}


def digits() -> Dataset:
    scans = load_digits()
    pixels = (scans.images[:, None] / 8 - 1).astype(np.float32)  # 0 … 16 becomes −1 … 1; one channel
    return Dataset.from_dict({"pixel_values": pixels, "labels": scans.target}).with_format("torch")


def teacher() -> PreTrainedModel:
    sizes = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 192}
    return ViTForImageClassification(ViTConfig(image_size=8, patch_size=2, num_channels=1, **sizes, **LABELS))


def student() -> PreTrainedModel:
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    return ResNetForImageClassification(ResNetConfig(num_channels=1, **sizes, **LABELS))


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((np.argmax(prediction.predictions, axis=-1) == prediction.label_ids).mean())}


def main(job: ExampleArguments) -> None:
    splits = digits().train_test_split(test_size=0.3, seed=0)
    compare(job, teacher, student, splits["train"], splits["test"], "eval_accuracy", compute_metrics=accuracy)


if __name__ == "__main__":
    main(*HfArgumentParser(ExampleArguments).parse_args_into_dataclasses())

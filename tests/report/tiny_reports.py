"""Reports of tiny models, made once for several tests."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch

from hf_distill import Export, distillation_report
from tests.tiny_models import model_for, rows_for
from tests.tiny_trainers import trainer_for


NAMES = {"id2label": {0: "bad", 1: "<fair>", 2: "good & cheap"}}


def rows_of(task):
    """Rows in float32, as models have their weights."""
    return [
        {
            name: value.float() if torch.is_tensor(value) and value.is_floating_point() else value
            for name, value in row.items()
        }
        for row in rows_for(task)
    ]


def reported_trainer(output_dir: Path, task="single_label", **changes):
    trainer = trainer_for(output_dir, task, rows=rows_of(task), eval_dataset=rows_of(task), preflight=False, **changes)
    if task == "single_label":
        for model in (trainer.model, trainer.teacher.model):
            model.config.id2label = NAMES["id2label"]
    return trainer


def baseline_for(trainer, task="single_label"):
    model = model_for(task, 1)
    model.config.id2label = trainer.model.config.id2label
    return model


@cache
def tiny_report():
    """Of a classifier that was trained for four steps, with all that a report may have."""
    trainer = reported_trainer(Path(mkdtemp()), max_steps=4, eval_strategy="steps", eval_steps=2)
    trainer.train()
    exports = (Export(Path(), "onnx", int8, 8, 0.5 * int8, 0.75, 2 * 10**6, 2.5, 0.4, 1.0) for int8 in (False, True))
    return distillation_report(
        trainer, baseline_for(trainer), num_resamples=50, batch_sizes=(1, 2), exports=tuple(exports)
    )

"""The pair that is trained here: soft targets and a learned projection, on rows of one short length."""

from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, set_seed
from transformers.utils import logging

from hf_distill import (
    DistillationTrainer,
    DistillationTrainingArguments,
    HardLabelTerm,
    HiddenStateTerm,
    Objective,
    SoftTargetTerm,
)


def model(num_hidden_layers: int, hidden_size: int) -> BertForSequenceClassification:
    set_seed(num_hidden_layers)
    sizes = {"vocab_size": 50, "num_attention_heads": 2, "intermediate_size": 32, "num_labels": 3}
    return BertForSequenceClassification(
        BertConfig(num_hidden_layers=num_hidden_layers, hidden_size=hidden_size, **sizes)
    )


def quiet_trainer(output_dir: Path, num_rows: int, callbacks: list[Any] | None = None, **arguments: Any):
    """A Trainer of one thread that prints nothing."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    generator = torch.Generator().manual_seed(0)
    rows = [
        {"input_ids": torch.randint(0, 50, (9,), generator=generator), "labels": index % 3}
        for index in range(num_rows)
    ]
    terms = {"labels": HardLabelTerm(), "soft": SoftTargetTerm(), "hidden": HiddenStateTerm(layer_map="uniform")}
    trainer = DistillationTrainer(
        model=model(1, 16),
        teacher=model(2, 32),
        objective=Objective({name: (1.0, term) for name, term in terms.items()}),
        args=DistillationTrainingArguments(
            output_dir=str(output_dir),
            per_device_train_batch_size=2,
            save_total_limit=2,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            preflight=False,
            **arguments,
        ),
        train_dataset=rows,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer

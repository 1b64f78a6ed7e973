"""One teacher, and students made of its layers: how they are trained and measured."""

import json
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from harness import read
from plan import Setting
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    set_seed,
)
from transformers.utils import logging
from ways import WAYS, Way

from hf_distill import DistillationTrainer, DistillationTrainingArguments, recipes, student_from_teacher


MAX_LENGTH = 64


@dataclass(frozen=True)
class TeacherSetting:
    """How it is fine-tuned: every epoch with a warm-up and decay of its own."""

    epochs: int = 2
    steps: int | None = None
    """Of an epoch; None takes as many as it has."""
    rate: float = 1e-4
    batch_size: int = 32


class Contest:
    """The trainings and measurements of one pretrained encoder on one machine.

    Args:
        pretrained: the folder of the encoder and its tokenizer.
        data: where `glue_sst2` is.
        output_dir: where the fine-tuned teacher is kept.
        teacher: how it is fine-tuned.
        num_rows: how many rows there are to train on, the first ones of a shuffled split; None takes all.
    """

    def __init__(
        self, pretrained: Path, data: Path, output_dir: Path, teacher: TeacherSetting, num_rows: int | None = None
    ):
        self.pretrained, self.output_dir, self.teacher_setting = pretrained, output_dir, teacher
        self.tokenizer = AutoTokenizer.from_pretrained(pretrained, local_files_only=True)
        self.collator = DataCollatorWithPadding(self.tokenizer)
        self.train_rows = self._tokenized(read(data, "glue_sst2", "train", num_rows))
        self.rows = self._tokenized(read(data, "glue_sst2", "validation"))

    def _tokenized(self, rows: Dataset) -> Dataset:
        def encode(batch: dict[str, list[Any]]) -> dict[str, Any]:
            encoded = self.tokenizer(batch["sentence"], truncation=True, max_length=MAX_LENGTH)
            return {**encoded, "label": batch["label"], "length": [len(ids) for ids in encoded["input_ids"]]}

        encoded = rows.map(encode, batched=True, remove_columns=rows.column_names)
        return encoded.select(np.argsort(encoded["length"], kind="stable"))

    def trainer(self, model: PreTrainedModel, objective: Any, **settings: Any) -> DistillationTrainer:
        return DistillationTrainer(
            model=model,
            teacher=settings.pop("teacher", None),
            objective=objective,
            args=DistillationTrainingArguments(
                output_dir=str(self.output_dir),
                per_device_eval_batch_size=64,
                weight_decay=0.01,
                bf16=True,
                use_cpu=True,
                preflight=False,
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
                dataloader_pin_memory=False,
                **settings,
            ),
            train_dataset=self.train_rows,
            data_collator=self.collator,
        )

    def fit(self, model: PreTrainedModel, way: Way, steps: int, rate: float, batch_size: int, seed: int) -> None:
        """Train for all stages of a way, each with warm-up and decay of its own."""
        share = steps // len(way.stages)
        for stage, objective in enumerate(way.objectives(model.config.num_hidden_layers)):
            self.trainer(
                model,
                objective,
                teacher=self.teacher if way.needs_teacher else None,
                max_steps=share,
                learning_rate=rate,
                warmup_steps=max(1, share // 10),
                per_device_train_batch_size=batch_size,
                train_sampling_strategy="group_by_length",
                seed=seed,
                data_seed=1000 * stage + seed,
            ).train()

    def answers(self, model: PreTrainedModel) -> np.ndarray:
        return self.trainer(model, recipes.hinton(alpha=1.0)).predict(self.rows).predictions.argmax(-1)

    def accuracy(self, answers: np.ndarray) -> float:
        return float(np.mean(answers == np.array(self.rows["label"])))

    @cached_property
    def teacher(self) -> PreTrainedModel:
        """The fine-tuned model, from the output folder if it was trained there by the same settings."""
        how, folder = self.teacher_setting, self.output_dir / "teacher"
        steps = how.epochs * (how.steps or len(self.train_rows) // how.batch_size)
        settings = [self.pretrained.name, how.epochs, steps, how.batch_size, how.rate]
        known = folder / "settings.json"
        if known.is_file() and json.loads(known.read_text()) == settings:
            return AutoModelForSequenceClassification.from_pretrained(folder).eval()
        set_seed(0)
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # that the head is fresh is the point here
        model = AutoModelForSequenceClassification.from_pretrained(self.pretrained, num_labels=2)
        logging.set_verbosity(verbosity)
        epochs = Way(WAYS["labels alone"].stages * how.epochs, "")
        self.fit(model, epochs, steps, how.rate, how.batch_size, seed=0)
        model.save_pretrained(folder)
        known.write_text(json.dumps(settings))
        return model.eval()

    @cached_property
    def teacher_answers(self) -> np.ndarray:
        return self.answers(self.teacher)

    def teacher_row(self) -> dict[str, Any]:
        return {"parameters": self.teacher.num_parameters(), "accuracy": self.accuracy(self.teacher_answers)}

    def student(self, layers: tuple[int, ...]) -> PreTrainedModel:
        return student_from_teacher(self.teacher, layers=list(layers))

    def run(self, setting: Setting, seed: int) -> dict[str, Any]:
        """One student, from the teacher's layers to its scores."""
        set_seed(seed)
        student, start = self.student(setting.layers), time.process_time()
        self.fit(student, WAYS[setting.way], setting.steps, setting.rate, setting.batch_size, seed)
        trained = time.process_time() - start
        answers = self.answers(student)
        return {
            "accuracy": self.accuracy(answers),
            "agreement": float(np.mean(answers == self.teacher_answers)),
            "parameters": student.num_parameters(),
            "seconds": round(trained, 1),
        }

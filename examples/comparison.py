"""What these examples have in common: a teacher, a student on its own, and the same student with the teacher.

Labels are scarce: the student alone learns from a few labelled rows. With the teacher it learns from all rows, by what
the teacher says of them (`alpha=0`). Not an example itself: run one of the others.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, set_seed

from hf_distill import DistillationTrainer, DistillationTrainingArguments, Objective


@dataclass
class ExampleArguments:
    """What every example takes. The defaults finish in about two minutes on two cores."""

    output_dir: str = field(default="outputs/example", metadata={"help": "Where models and evidence go."})
    steps: int = field(default=400, metadata={"help": "Of the teacher and of both students."})
    batch_size: int = 32
    teacher_learning_rate: float = 2e-3
    student_learning_rate: float = 4e-3
    labelled_rows: int = field(default=150, metadata={"help": "Rows whose labels the student may see."})
    temperature: float = 2.0
    seed: int = 0
    smoke: bool = field(default=False, metadata={"help": "A few steps, to see that all runs."})


@dataclass
class Comparison:
    """Models that are trained alike and measured on the same rows, and what came of each."""

    job: ExampleArguments
    eval_dataset: Dataset
    score: str
    """Of the evaluation's metrics, the one to compare by. Of losses the smaller is the better."""
    trainer_arguments: dict[str, Any]
    evidence: list[dict[str, Any]] = field(default_factory=list)

    def trained(
        self,
        name: str,
        model: PreTrainedModel,
        rows: Dataset,
        learning_rate: float,
        teacher: PreTrainedModel | None = None,
        objective: Objective | None = None,
    ) -> PreTrainedModel:
        """Train a model and measure it. Without an objective it learns from its teacher alone, or else from labels."""
        job, measured = self.job, self.eval_dataset
        mixing = {"temperature": job.temperature, "alpha": 1.0 if teacher is None else 0.0}
        args = DistillationTrainingArguments(
            output_dir=str(Path(job.output_dir) / name),
            report_agreement=teacher is not None,
            max_steps=3 if job.smoke else job.steps,
            learning_rate=learning_rate,
            per_device_train_batch_size=job.batch_size,
            per_device_eval_batch_size=64,
            logging_steps=50,
            save_strategy="no",
            report_to=[],
            seed=job.seed,
            **(mixing if objective is None else {}),
        )
        trainer = DistillationTrainer(
            model=model,
            teacher=teacher,
            objective=objective,
            args=args,
            train_dataset=rows,
            eval_dataset=measured.select(range(min(64, len(measured)))) if job.smoke else measured,
            **self.trainer_arguments,
        )
        trainer.train()
        trainer.save_model()
        metrics = trainer.evaluate()
        row = {"model": name, "parameters": model.num_parameters(), "score": metrics[self.score], **metrics}
        self.evidence.append(row)
        return model

    def save(self) -> None:
        """Write `evidence.json`, and print the score of each model."""
        (Path(self.job.output_dir) / "evidence.json").write_text(json.dumps(self.evidence, indent=2))
        scores = {row["model"]: row["score"] for row in self.evidence}
        for row in self.evidence:
            print(f"{row['model']:>10}: {self.score} {row['score']:.4g}, {row['parameters']:,} parameters")
        gain = scores["distilled"] - scores["student"]
        if (gain if "loss" not in self.score else -gain) <= 0:
            print("Distilling did not help here: the student on its own is as good or better.")


def compare(
    job: ExampleArguments,
    new_teacher: Callable[[], PreTrainedModel],
    new_student: Callable[[], PreTrainedModel],
    train_dataset: Dataset,
    eval_dataset: Dataset,
    score: str,
    **trainer_arguments: Any,
) -> None:
    """Train the three, print the score of each, and write it to `evidence.json`.

    Both students start from the same weights and make as many steps.
    """

    def new(make: Callable[[], PreTrainedModel]) -> PreTrainedModel:
        set_seed(job.seed)
        return make()

    comparison = Comparison(job, eval_dataset, score, trainer_arguments)
    labelled = train_dataset.select(range(job.labelled_rows))
    teacher = comparison.trained("teacher", new(new_teacher), train_dataset, job.teacher_learning_rate)
    comparison.trained("student", new(new_student), labelled, job.student_learning_rate)
    comparison.trained("distilled", new(new_student), train_dataset, job.student_learning_rate, teacher)
    comparison.save()

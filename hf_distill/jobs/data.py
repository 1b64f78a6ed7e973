"""The rows of a job as one model reads them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel

from hf_distill.errors import ClassMismatchError
from hf_distill.heads.frames import least_samples
from hf_distill.position_tables import max_positions
from hf_distill.processing import TASKS, Labels, Reading, Task, check_inputs, class_ids, find_columns, labels_of


@dataclass(frozen=True)
class Data:
    """The rows of a job."""

    task_name: str
    train: Dataset | None
    evaluation: Dataset
    columns: Mapping[str, str]
    """Role → column."""
    labels: Labels | None
    """None where labels are no classes, or there are none."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """`max_length`, `max_target_length` and `sampling_rate` of a `Reading`, where the user gave them."""

    @property
    def task(self) -> Task:
        return TASKS[self.task_name]

    @property
    def has_labels(self) -> bool:
        """Whether there is something to learn without a teacher. A language model needs text alone."""
        return "label" in self.columns or not self.task.labels

    def reading(self, model: PreTrainedModel, processor: Any) -> Reading:
        """How this model reads them. A length that nobody asked for is cut to what the model can read."""
        given = {name: value for name, value in self.settings.items() if value is not None}
        limit = max_positions(model)
        length = min(self.task.max_length, limit) if limit is not None else self.task.max_length
        config: Any = model.config
        if "audio" in self.columns:
            given["least_samples"] = least_samples(model)
        if self.labels is None:
            return Reading(processor, self.columns, **{"max_length": length, **given})
        if self.labels.problem == "regression" and config.num_labels != 1:
            names = ", ".join(str(config.id2label[index]) for index in range(config.num_labels))
            raise ClassMismatchError(
                f"label_column={self.columns['label']!r} holds numbers to be learnt (a regression), and the model has "
                f"{config.num_labels} classes ({names}). Write classes as words or whole numbers, or take a model "
                "with one output."
            )
        return Reading(
            processor,
            self.columns,
            self.labels.problem,
            {} if self.labels.problem == "regression" else class_ids(self.labels, config),
            config.num_labels,
            **{"max_length": length, **given},
        )

    def trainer_arguments(self, reading: Reading) -> dict[str, Any]:
        """What a Trainer needs of them."""
        evaluation = self.task.process(self.evaluation, reading)
        has_scores = self.task.scores is not None and "label" in self.columns
        return {
            "train_dataset": None if self.train is None else self.task.process(self.train, reading),
            "eval_dataset": evaluation,
            "data_collator": self.task.collator(reading),
            "processing_class": reading.processor,
            "compute_metrics": self.task.scores(evaluation, reading) if self.task.scores and has_scores else None,
        }


def job_data(
    task_name: str,
    train: Dataset | None,
    evaluation: Dataset,
    columns: Mapping[str, str | None] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Data:
    """The rows of a job, their columns found.

    Args:
        task_name: one of `processing.TASKS`.
        train, evaluation: rows.
        columns: role → column, where the user named one.
        settings: see `Data`.
    """
    task, rows = TASKS[task_name], evaluation if train is None else train
    found = find_columns(rows.column_names, task.inputs, task.labels, columns or {})
    for each in (train, evaluation):
        if each is not None:
            check_inputs(each, found)
    labels = None
    if task.labels_in_lists is not None and "label" in found:
        others = [each for each in (evaluation,) if each is not rows and found["label"] in each.column_names]
        labels = labels_of(found["label"], task.labels_in_lists, rows, *others)
    return Data(task_name, train, evaluation, found, labels, settings or {})

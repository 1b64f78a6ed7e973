"""How the rows of a data set are read for one model."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset

from hf_distill.processing.labels import NO_LABEL, Problem
from hf_distill.types import IGNORED_LABEL


@dataclass(frozen=True)
class Reading:
    """What turns rows into a model's inputs."""

    processor: Any
    """Its tokenizer, image processor or feature extractor."""
    columns: Mapping[str, str]
    """Role → column, as `find_columns` finds them."""
    problem: Problem | None = None
    """Of a classifier with labels."""
    class_ids: Mapping[Hashable, int] = field(default_factory=dict)
    """Value of a label → class of the model."""
    num_classes: int = 0
    max_length: int = 128
    """Tokens of a row, or of a block of text; the model may allow fewer."""
    max_target_length: int = 128
    """Tokens of a text that is to be written."""
    sampling_rate: int | None = None
    """Of recordings that do not say it themselves."""
    least_samples: int = 1
    """Of a recording; the model makes nothing of fewer."""

    @property
    def text_columns(self) -> list[str]:
        """The columns that are read as one text, or as a pair of them."""
        return [self.columns[role] for role in ("text", "text_pair") if role in self.columns]

    def label(self, value: Any) -> Any:
        """What the model is given for the label of a row."""
        if self.problem == "regression":
            return float(value)
        if self.problem == "multi_label_classification":
            present = {self.class_ids[each] for each in value}
            return [float(index in present) for index in range(self.num_classes)]
        return IGNORED_LABEL if value in NO_LABEL else self.class_ids[value]

    def replaced_columns(self, rows: Dataset) -> list[str]:
        """The columns that do not go on: the label, since the model's own is called `labels`."""
        return [name for role, name in self.columns.items() if role == "label" and name in rows.column_names]

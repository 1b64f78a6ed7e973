"""A teacher whose answers stand in the data set."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.trainer_utils import unwrap_peft_model
from transformers.utils import logging

from hf_distill.errors import ClassMismatchError, ConfigurationError, MissingInputError, UnsupportedModelError
from hf_distill.heads import EmbeddingHead, Head, MultiLabelHead, RegressionHead, SingleLabelHead
from hf_distill.heads.alignment import Alignment, named_classes
from hf_distill.teachers.base import Teacher
from hf_distill.types import TEACHER_PREFIX, Batch, Signals


logger = logging.get_logger(__name__)

Holding = Literal["logits", "probabilities"]

MIN_PROBABILITY = torch.finfo(torch.float32).eps
"""What is less likely counts as this, since a 0 out of so many votes does not mean never."""
SUM_TOLERANCE = 0.05
"""By how much probabilities may miss a sum of 1, as those that are rounded to two digits do."""
NUM_TELLING_ROWS = 8
"""So many rows, the first that are read, do not all look like something else by chance."""


class ColumnTeacher(Teacher):
    """Answers that a column of the data set holds, whoever gave them: annotators, a service, a model that is gone.

    It says one thing about each row, so the student is one that does: a classifier of texts, images or sounds, a
    regression, or a model of embeddings. No model is asked, and the cost of a step is that of the student.

        logits = log p, where the column holds probabilities p; of many labels, log p − log(1 − p) of each

    The Trainer takes the column out of the rows before `data_collator` sees these, and puts it into the batch as a
    tensor, `teacher_<column>`.

    Args:
        column: its name. A row holds a number for each class; the numbers of a regression; or an embedding, in the
            width of the student's or, with `head=SimilarityHead()`, any.
        holds: "logits", what a model gives, also the numbers of regressions and embeddings; or "probabilities", which
            are shares of votes too. The latter are softened by the temperature, as a model's are.
        classes: the names of the classes, in the column's order, by which they are brought into the student's. If
            left out, they are in the student's.

    Raises:
        ConfigurationError: if `holds` is neither.

    Example:

        >>> from hf_distill.heads import SingleLabelHead
        >>> teacher = ColumnTeacher("votes", holds="probabilities", classes=["no", "yes"])
        >>> teacher.meet(nn.Identity(), SingleLabelHead())
        >>> said = teacher.signals({"input_ids": torch.zeros(2, 5), "teacher_votes": torch.tensor([[0.9, 0.1]] * 2)})
        >>> said.logits.softmax(-1)
        tensor([[0.9000, 0.1000],
                [0.9000, 0.1000]])
    """

    may_download = False
    """Whether its tokenizer is looked for beyond this machine."""
    reads_apart = False
    """Whether it reads by a processing class of its own."""
    name_or_path = None

    def __init__(self, column: str, *, holds: Holding = "logits", classes: Sequence[str] | None = None) -> None:
        if holds not in get_args(Holding):
            raise ConfigurationError(f"`holds` must be one of {list(get_args(Holding))}, got {holds!r}.")
        self.column = column
        self.holds = holds
        self.classes = None if classes is None else tuple(classes)
        self.alignment = Alignment()
        self.head: Head | None = None
        self._num_read = 0
        self._look_like: list[str] = []
        self.config: Any = PreTrainedConfig.from_dict({"id2label": dict(enumerate(self.classes or ()))})

    @property
    def input_names(self) -> frozenset[str]:
        return frozenset({self.column})

    @property
    def entry_names(self) -> frozenset[str]:
        """What the answers are called in a batch, after `TEACHER_PREFIX`."""
        return self.input_names

    @property
    def entry(self) -> str:
        """What the answers are called in a batch."""
        return f"{TEACHER_PREFIX}{self.column}"

    def meet(self, student: nn.Module, head: Head) -> None:
        """Be read by the student's head, and without `classes` take its own.

        Raises:
            UnsupportedModelError: if the head says more than one thing about a row.
            ConfigurationError: if the column is said to hold probabilities, and the head gives none.
        """
        if not isinstance(head, (SingleLabelHead, EmbeddingHead)):
            raise UnsupportedModelError(
                f"`ColumnTeacher` has one answer for each row, and a {type(head).__name__} says more than that. Let "
                "`cache_teacher` write down a model's answers, or pass the model as `teacher=`."
            )
        if self.holds == "probabilities" and not head.is_distribution:
            raise ConfigurationError(
                f"the column {self.column!r} is said to hold probabilities, and a {type(head).__name__} has none. "
                "Leave `holds` out."
            )
        self.head = head
        config = getattr(unwrap_peft_model(student), "config", None)
        if self.classes is None and head.class_axis is not None and config is not None:
            self.config = PreTrainedConfig.from_dict({"id2label": dict(config.id2label)})
            if names := named_classes(config):
                logger.warning_once(
                    f"The column {self.column!r} does not name its classes, so they are taken to be in the student's "
                    f"order: {names}. Pass `ColumnTeacher({self.column!r}, classes=[…])` to have them compared."
                )

    def collator_for(self, collator: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return DataCollatorWithColumn(collator, self)

    def answers(self, rows: Sequence[Mapping[str, Any]], batch: Batch) -> Tensor:
        """What the column holds of some rows, `(B, …)`.

        Args:
            rows: as the data set has them.
            batch: what else is known of them, whose labels may tell which kind of classes there are.

        Raises:
            ConfigurationError: if a row has no numbers, or fewer than another, or they are not what `holds` says.
            ClassMismatchError: if there is not one number for each class.
        """
        values = [row[self.column] for row in rows]
        try:
            held = torch.stack([torch.as_tensor(value, dtype=torch.get_default_dtype()) for value in values])
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigurationError(
                f"the column {self.column!r} does not hold equally many numbers in each row: {error}. Fill it in, or "
                "leave out the rows that nobody has answered."
            ) from error
        if not held.isfinite().all():
            row = int((~held.isfinite().reshape(len(held), -1).all(1)).nonzero()[0])
            raise ConfigurationError(
                f"the column {self.column!r} holds {_shown(held[row])} in a row, and numbers that are finite are "
                "needed. Leave out the rows that nobody has answered."
            )
        head = self._head_for(batch)
        if held.ndim != 2 and not (held.ndim == 1 and isinstance(head, RegressionHead)):
            raise ConfigurationError(
                f"a row of the column {self.column!r} has the shape {list(held.shape[1:])}, and a "
                f"{type(head).__name__} asks for a list of numbers."
            )
        self._check_classes(held, head)
        if not isinstance(head, (EmbeddingHead, RegressionHead)):
            self._check_probabilities(held, head)
        return held

    def signals(self, batch: Batch) -> Signals:
        """What the column says of the rows of a batch.

        Raises:
            MissingInputError: if the batch lacks it.
        """
        if batch.get(self.entry) is None:
            raise MissingInputError(
                f"`ColumnTeacher` has the answers of the column {self.column!r}, and the batch has only "
                f"{sorted(batch)}. Keep that column in every data set, the evaluation's too."
            )
        head, held = self._head_for(batch), batch[self.entry]
        if isinstance(head, EmbeddingHead):
            logits = head.of_vectors(held)
        else:
            logits = head.logits({"logits": self._as_logits(held, head)}, batch)
        return self.alignment.of_teacher(Signals(logits, is_distribution=head.is_distribution))

    def _head_for(self, batch: Batch) -> Head:
        if self.head is None:
            raise ConfigurationError(
                f"the `ColumnTeacher` of {self.column!r} has not met a head by which rows are read. Pass it to "
                "`DistillationTrainer(teacher=…)`, or call `meet(student, head)`."
            )
        self.head = self.head.resolved(batch)  # and so it stays for rows without labels
        return self.head

    def _as_logits(self, held: Tensor, head: Head) -> Tensor:
        if self.holds == "probabilities":
            is_of_each = isinstance(head, MultiLabelHead)
            return held.logit(MIN_PROBABILITY) if is_of_each else held.clamp(min=MIN_PROBABILITY).log()
        return held[:, None] if held.ndim == 1 else held

    def _check_classes(self, held: Tensor, head: Head) -> None:
        num_classes = self.config.num_labels
        if head.class_axis is not None and num_classes and held[0].numel() != num_classes:
            raise ClassMismatchError(
                f"the column {self.column!r} holds {held[0].numel()} numbers in a row, and there are {num_classes} "
                f"classes: {list(self.config.id2label.values())}. Let it hold one for each, and name them by "
                "`classes=` where they are not the student's."
            )

    def _check_probabilities(self, held: Tensor, head: Head) -> None:
        """That these are probabilities, or are none, as `holds` says."""
        is_one_choice = not isinstance(head, MultiLabelHead)
        off_by = (held.sum(-1) - 1).abs() * is_one_choice
        in_range = ((held >= -SUM_TOLERANCE) & (held <= 1 + SUM_TOLERANCE)).all(-1)
        fits = in_range & (off_by <= SUM_TOLERANCE)
        if self.holds == "probabilities" and not fits.all():
            raise ConfigurationError(
                f"the column {self.column!r} holds {_shown(held[~fits][0])} in a row, and probabilities lie between 0 "
                f"and 1{', and add up to 1' * is_one_choice}. Divide votes by their number; pass `holds='logits'` for "
                "scores that are no probabilities yet."
            )
        if self.holds == "logits":
            self._check_logits(held, fits, is_one_choice)

    def _check_logits(self, held: Tensor, may_be_probabilities: Tensor, is_one_choice: bool) -> None:
        """The first rows, in batches of whatever size, do not all look like something else."""
        if self._num_read >= NUM_TELLING_ROWS:
            return
        looks = {
            f"numbers between 0 and 1{' that add up to 1' * is_one_choice}": may_be_probabilities.all(),
            "whole numbers, as of votes": ((held >= 0) & (held == held.round())).all(),
        }
        self._look_like = [
            what for what, look in looks.items() if look and (not self._num_read or what in self._look_like)
        ]
        self._num_read += len(held)
        if self._look_like and self._num_read >= NUM_TELLING_ROWS:
            raise ConfigurationError(
                f"the column {self.column!r} holds {self._look_like[0]}, such as {_shown(held[0])}. As logits they "
                "would be another distribution. Pass `holds='probabilities'`, with votes divided by their number."
            )


class DataCollatorWithColumn:
    """A collator, and beside what it returns what a column says.

    Args:
        collator: the Trainer's. It does not get to see the column.
        teacher: whose column.
    """

    def __init__(self, collator: Callable[[Any], Any], teacher: ColumnTeacher) -> None:
        self.collator = collator
        self.teacher = teacher

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        column = self.teacher.column
        if not all(column in row for row in rows):
            return dict(self.collator(rows))  # said where the teacher is asked, if it is
        batch = self.collator([{name: row[name] for name in row if name != column} for row in rows])
        return {**batch, self.teacher.entry: self.teacher.answers(rows, batch)}


def _shown(row: Tensor) -> list[float]:
    return [round(value, 4) for value in row.flatten()[:8].tolist()]

"""A teacher that reads the rows by a tokenizer or processor of its own, beside others that read by theirs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from torch import nn

from hf_distill.errors import ConfigurationError, MissingInputError
from hf_distill.heads import Head
from hf_distill.position_tables import max_positions
from hf_distill.raw_columns import modalities
from hf_distill.teacher_inputs import TeacherInputs
from hf_distill.teachers.cached import CachedTeacher
from hf_distill.teachers.composite import CompositeTeacher, known_teachers
from hf_distill.teachers.online import OnlineTeacher
from hf_distill.types import TEACHER_PREFIX, Batch, Signals


_numbers = count()


class ProcessingTeacher(CompositeTeacher):
    """A model that reads raw columns of the data set by its own tokenizer, image processor or feature extractor.

    It is for several teachers of which each reads in its own way. A single teacher is passed as it is, with
    `teacher_processing_class=` beside it. The raw columns stay in every data set, and the student's collator does not
    get to see them.

    Args:
        teacher: a model, a Hub id, a local path, or the folder of a cache, made of rows that this processing class has
            read.
        processing_class: what it reads by.
        columns: the raw column that it reads; or two, a text and its pair, or one of text and one of another kind.

    Raises:
        ConfigurationError: if there are no columns; when the Trainer starts, if outputs lie on tokens, which would be
            others than the student's; with the first batch, if the processing class makes nothing of the columns.
    """

    def __init__(self, teacher: Any, processing_class: Any, columns: str | Sequence[str]) -> None:
        super().__init__([teacher])
        self.processing_class = processing_class
        self.columns = (columns,) if isinstance(columns, str) else tuple(columns)
        self.prefix = f"{TEACHER_PREFIX}{next(_numbers)}_"
        """What the names of its entries in a batch begin with."""
        if not self.columns:
            raise ConfigurationError("`columns` is empty. Name the raw column that the teacher reads.")

    @property
    def input_names(self) -> frozenset[str]:
        names = {f"{self.prefix}{name}" for name in super().input_names} | set(self.columns)
        return frozenset(names).union(*(each.entry_names for each in _caches(self)))

    def meet(self, student: nn.Module, head: Head) -> None:
        super().meet(student, head)
        if head.positions_are_tokens or head.is_language_model:
            raise ConfigurationError(
                f"the outputs of a {type(head).__name__} lie on tokens, and by its "
                f"{type(self.processing_class).__name__} a `ProcessingTeacher` reads others than the student. Pass a "
                "teacher of the student's tokens, or, for a causal language model, a single one with "
                "`teacher_processing_class=`."
            )
        for member in known_teachers(self):
            member.reads_apart = True

    def collator_for(self, collator: Callable[[Any], Any]) -> Callable[[Any], Any]:
        (member,) = known_teachers(self)
        names, cache = member.input_names, None
        if isinstance(member, CachedTeacher):
            names, cache = frozenset(member.cache.manifest.teacher_inputs), member
        limit = max_positions(member.model) if isinstance(member, OnlineTeacher) else None
        reader = RowReader(self.prefix, self.processing_class, names, self.columns, limit, cache)
        return DataCollatorWithReaders(collator, [reader])

    def signals(self, batch: Batch) -> Signals:
        """What the model says about a batch.

        Raises:
            MissingInputError: if the Trainer's collator has not read the rows for it.
        """
        read = _as_the_only_one(batch, self.prefix)
        if not read:
            raise MissingInputError(
                f"a `ProcessingTeacher` reads the columns {list(self.columns)} in the Trainer's collator, and the "
                f"batch was made by another: it has only {sorted(batch)}. Take batches from the Trainer's loaders."
            )
        said: Signals = self.members[0].signals({**batch, **read})
        return said


@dataclass(frozen=True)
class RowReader:
    """Makes the inputs of one teacher out of raw columns, under names that begin with `prefix`."""

    prefix: str
    processing_class: Any
    input_names: frozenset[str]
    columns: tuple[str, ...]
    max_length: int | None
    cache: CachedTeacher | None = None
    """What the teacher has said before, to be looked up by these inputs."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The entries for a batch of these rows.

        Raises:
            MissingInputError: if a row lacks a column.
            ConfigurationError: if nothing is made of the columns.
        """
        for row in rows:
            if missing := [name for name in self.columns if name not in row]:
                raise MissingInputError(
                    f"a `ProcessingTeacher` reads the columns {missing}, and a row has only {sorted(row)}. Keep them "
                    "in every data set, the evaluation's too."
                )
        columns = {
            modality.name: tuple(name for name in self.columns if all(modality.is_raw(row[name]) for row in rows))
            for modality in modalities(self.input_names)
        }
        columns = {name: found for name, found in columns.items() if found}
        inputs = TeacherInputs(self.processing_class, self.input_names, columns, self.max_length)(rows)
        if not inputs:
            raise ConfigurationError(
                f"a {type(self.processing_class).__name__} makes nothing of the columns {list(self.columns)} that its "
                f"`ProcessingTeacher` could read: {sorted(self.input_names)}. Name the raw column, and pass what was "
                "saved with that teacher as `processing_class=`."
            )
        return {f"{self.prefix}{name.removeprefix(TEACHER_PREFIX)}": value for name, value in inputs.items()}


class DataCollatorWithReaders:
    """A collator, and beside what it returns the inputs of teachers that read by themselves.

    Args:
        collator: the student's, which does not get to see the raw columns, or another of this class.
        readers: one for each teacher.
    """

    def __init__(self, collator: Callable[[Any], Any], readers: Sequence[RowReader]) -> None:
        self.collator: Callable[[Any], Any] = collator
        self.readers = list(readers)
        if isinstance(collator, DataCollatorWithReaders):
            self.collator, self.readers = collator.collator, [*collator.readers, *readers]

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        raw = {name for reader in self.readers for name in reader.columns}
        batch = dict(self.collator([{name: row[name] for name in row if name not in raw} for row in rows]))
        for reader in self.readers:
            read = reader(rows)
            batch |= read
            if reader.cache is not None:
                batch |= reader.cache.answers({**batch, **_as_the_only_one(read, reader.prefix)})
        return batch


def _as_the_only_one(batch: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The entries of one teacher under the names that they have where there is no other."""
    return {
        f"{TEACHER_PREFIX}{name.removeprefix(prefix)}": value
        for name, value in batch.items()
        if name.startswith(prefix)
    }


def _caches(teacher: CompositeTeacher) -> list[CachedTeacher]:
    return [each for each in known_teachers(teacher) if isinstance(each, CachedTeacher)]

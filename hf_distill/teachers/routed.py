"""A teacher for each row, chosen by one of its columns."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from hf_distill.errors import ConfigurationError, MissingInputError, MissingTeacherError, UnsupportedModelError
from hf_distill.heads import Head
from hf_distill.teachers.base import Teacher
from hf_distill.teachers.cached import CachedTeacher
from hf_distill.teachers.composite import CompositeTeacher, known_teachers, online_teachers
from hf_distill.types import TEACHER_PREFIX, Batch, Signals


class RoutedTeacher(CompositeTeacher):
    """Every row is answered by the teacher that its column names, and by no other.

    The column stays in the data set, and goes to no model. Strings cannot be batched, so the Trainer takes them out of
    the rows before `data_collator` sees these, and puts the number of the route into the batch, as `teacher_<column>`.

    Args:
        teachers: the routes: a value of the column → a model, Hub id, local path, folder of a cache, or any
            [`Teacher`]. The values are all strings or all integers, as the rows hold them. A cache need hold the rows
            of its route alone.
        column: the column that names the route.

    Raises:
        ConfigurationError: if there is no route, or the routes are not all strings or all integers.

    Example:

        >>> from hf_distill.teachers import Teacher
        >>> class Sure(Teacher):
        ...     input_names = frozenset({"input_ids"})
        ...     def __init__(self, score):
        ...         self.score = score
        ...     def signals(self, batch):
        ...         return Signals(torch.full((len(batch["input_ids"]), 2), self.score))
        >>> teacher = RoutedTeacher({"de": Sure(1.0), "fr": Sure(2.0)}, column="language")
        >>> teacher.signals({"input_ids": torch.zeros(3, 4), "language": ["fr", "de", "fr"]}).logits
        tensor([[2., 2.],
                [1., 1.],
                [2., 2.]])
    """

    def __init__(self, teachers: Mapping[str, Any] | Mapping[int, Any], column: str) -> None:
        super().__init__(teachers.values())
        self.routes: tuple[str | int, ...] = tuple(teachers)
        self.column = column
        kinds = {type(route) for route in self.routes}
        if kinds not in ({str}, {int}):
            raise ConfigurationError(
                f"`teachers` has the routes {list(self.routes)}, and they must be one or more, all strings or all "
                f"integers: the values of the column {column!r}."
            )

    @property
    def input_names(self) -> frozenset[str]:
        return super().input_names | {self.column}

    def meet(self, student: nn.Module, head: Head) -> None:
        """Let every member get to know the student.

        Raises:
            UnsupportedModelError: if a route is a cache whose rows are read by a processing class of its own.
        """
        super().meet(student, head)
        for route, member in zip(self.routes, self.members, strict=True):
            if any(isinstance(each, CachedTeacher) and each.reads_apart for each in known_teachers(member)):
                raise UnsupportedModelError(
                    f"the route {route!r} is a cache that is read through a `ProcessingTeacher`, and the rows of one "
                    "route alone cannot be read so. Pass the model in place of its cache, or a cache of rows in the "
                    "student's tokens."
                )

    def collator_for(self, collator: Callable[[Any], Any]) -> Callable[[Any], Any]:
        caches = {number: member for number, member in enumerate(self.members) if _has_cache(member)}
        for number, member in enumerate(self.members):
            collator = collator if number in caches else member.collator_for(collator)
        return DataCollatorWithRoutes(collator, self.column, self.routes, caches)

    def signals(self, batch: Batch) -> Signals:
        """What each row's own teacher says about it, in the order of the rows.

        Raises:
            MissingInputError: if the batch lacks the column.
            MissingTeacherError: if a row names a route that is not known.
        """
        numbers = batch.get(f"{TEACHER_PREFIX}{self.column}")
        if numbers is None:
            if batch.get(self.column) is None:
                raise MissingInputError(
                    f"`RoutedTeacher` chooses a teacher by the column {self.column!r}, and the batch has only "
                    f"{sorted(batch)}. Keep that column in every data set, the evaluation's too."
                )
            numbers = torch.tensor(route_numbers(batch[self.column], self.column, self.routes))
        said: list[Signals] = []
        asked: list[Tensor] = []
        for number, member in enumerate(self.members):
            rows = (numbers == number).nonzero().flatten()
            if len(rows):
                said.append(member.signals(_rows_of(batch, rows, len(numbers))))
                asked.append(rows)
            elif any(
                each.is_sharded for each in online_teachers(member)
            ):  # the other processes wait for this one's share of the weights
                member.signals(_rows_of(batch, numbers.new_zeros(1), len(numbers)))
        logits = torch.cat([signals.logits for signals in said])
        back = torch.cat(asked).argsort().to(logits.device)
        return replace(said[0], logits=logits.index_select(0, back), encoder_states=None)


class DataCollatorWithRoutes:
    """A collator, and beside what it returns the number of each row's route, as `teacher_<column>`.

    Args:
        collator: the Trainer's. It does not get to see a column of strings, which it could not batch.
        column: the column that names the route.
        routes: its values, in the order of their numbers.
        caches: the teachers that look up answers, by the number of their route, each for the rows of its own.
    """

    def __init__(
        self,
        collator: Callable[[Any], Any],
        column: str,
        routes: Sequence[str | int],
        caches: Mapping[int, Teacher] = MappingProxyType({}),
    ) -> None:
        self.caches = dict(caches)
        self.collator = collator
        self.column = column
        self.routes = tuple(routes)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        if not all(self.column in row for row in rows):
            return dict(self.collator(rows))  # said where a teacher is asked, if one is
        values = [row[self.column] for row in rows]
        if any(isinstance(value, str) for value in values):
            rows = [{name: row[name] for name in row if name != self.column} for row in rows]
        numbers = route_numbers(values, self.column, self.routes)
        batch = {**self.collator(rows), f"{TEACHER_PREFIX}{self.column}": torch.tensor(numbers)}
        for number, member in self.caches.items():
            if chosen := [row for row, each in enumerate(numbers) if each == number]:
                batch |= _looked_up(member, rows, chosen, batch)
        return batch


def route_numbers(values: Iterable[Any], column: str, routes: Sequence[str | int]) -> list[int]:
    """The place of each value among the routes.

    Raises:
        MissingTeacherError: if it has none.
    """
    known = {route: number for number, route in enumerate(routes)}
    plain = [value.item() if hasattr(value, "item") else value for value in values]
    unknown = [value for value in plain if value not in known]
    if unknown:
        raise MissingTeacherError(
            f"a row has {column}={unknown[0]!r}, and there are teachers for {list(routes)} alone. Add one for it to "
            "`teachers`, or leave such rows out. The numbers of a `ClassLabel` column are routes as numbers."
        )
    return [known[value] for value in plain]


def _has_cache(teacher: Teacher) -> bool:
    return any(isinstance(each, CachedTeacher) for each in known_teachers(teacher))


def _looked_up(teacher: Teacher, rows: Sequence[Any], chosen: Sequence[int], batch: Batch) -> dict[str, Tensor]:
    """What a teacher's collator adds to some rows of a batch, in their places among all of them."""
    index = torch.tensor(chosen)
    part = _rows_of(batch, index, len(rows))
    made = teacher.collator_for(lambda _: part)([rows[number] for number in chosen])
    return {
        name: value.new_zeros(len(rows), *value.shape[1:]).index_copy_(0, index, value)
        for name, value in made.items()
        if name not in part
    }


def _rows_of(batch: Batch, rows: Tensor, size: int) -> dict[str, Any]:
    return {
        name: value[rows.to(value.device)]
        if isinstance(value, Tensor) and value.ndim and len(value) == size
        else value
        for name, value in batch.items()
    }

"""A teacher for each row, chosen by one of its columns."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from hf_distill.errors import ConfigurationError, MissingInputError, MissingTeacherError, UnsupportedModelError
from hf_distill.heads import Head
from hf_distill.teachers.base import Teacher
from hf_distill.teachers.cached import CachedTeacher
from hf_distill.teachers.column import ColumnTeacher
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
            UnsupportedModelError: if a route is a cache whose rows are read by a processing class of its own, or two
                routes look up some of the same answers.
        """
        super().meet(student, head)
        looked_up = {_entry_names(member): route for route, member in zip(self.routes, self.members, strict=True)}
        for first, second in combinations(looked_up, 2):
            if first & second:
                raise UnsupportedModelError(
                    f"the routes {looked_up[first]!r} and {looked_up[second]!r} have some of their answers from one "
                    "cache or column, and not all. Let both have the same ones, or give one of them the model itself."
                )
        for route, member in zip(self.routes, self.members, strict=True):
            if any(isinstance(each, CachedTeacher) and each.reads_apart for each in known_teachers(member)):
                raise UnsupportedModelError(
                    f"the route {route!r} is a cache that is read through a `ProcessingTeacher`, and the rows of one "
                    "route alone cannot be read so. Pass the model in place of its cache, or a cache of rows in the "
                    "student's tokens."
                )

    def collator_for(self, collator: Callable[[Any], Any]) -> Callable[[Any], Any]:
        for member in self.members:
            collator = collator if _entry_names(member) else member.collator_for(collator)
        return DataCollatorWithRoutes(collator, self.column, self.routes, self.members)

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
        collator: the Trainer's. It does not get to see a column of strings, which it could not batch, nor columns of
            answers.
        column: the column that names the route.
        routes: its values, in the order of their numbers.
        teachers: theirs. Those that look up answers do so for the rows of their own routes alone.
    """

    def __init__(
        self,
        collator: Callable[[Any], Any],
        column: str,
        routes: Sequence[str | int],
        teachers: Sequence[Teacher] = (),
    ) -> None:
        self.collator = collator
        self.column = column
        self.routes = tuple(routes)
        self.lookups: dict[frozenset[str], tuple[Teacher, list[int]]] = {}
        for number, teacher in enumerate(teachers):
            if names := _entry_names(teacher):
                self.lookups.setdefault(names, (teacher, []))[1].append(number)
        self.answer_columns = {
            each.column for teacher in teachers for each in known_teachers(teacher) if isinstance(each, ColumnTeacher)
        }

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        named = all(self.column in row for row in rows)
        values = [row[self.column] for row in rows] if named else []
        strings = {self.column} if any(isinstance(value, str) for value in values) else set()
        hidden = self.answer_columns | strings
        batch = dict(self.collator([{name: row[name] for name in row if name not in hidden} for row in rows]))
        if not named:
            return batch  # said where a teacher is asked, if one is
        numbers = route_numbers(values, self.column, self.routes)
        batch[f"{TEACHER_PREFIX}{self.column}"] = torch.tensor(numbers)
        answers: dict[str, Tensor] = {}
        for teacher, routes in self.lookups.values():
            if chosen := [row for row, number in enumerate(numbers) if number in routes]:
                answers |= _looked_up(teacher, rows, chosen, batch)
        return batch | answers


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


def _entry_names(teacher: Teacher) -> frozenset[str]:
    """What the answers are called that a teacher looks up."""
    known = known_teachers(teacher)
    return frozenset().union(*(each.entry_names for each in known if isinstance(each, (CachedTeacher, ColumnTeacher))))


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

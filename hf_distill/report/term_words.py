"""The terms of an objective, in words."""

import dataclasses
import functools
import inspect
from typing import Any

from hf_distill.objective import Objective
from hf_distill.terms import Term


def term_rows(objective: Objective) -> list[list[str]]:
    """Name, weight and description of every term."""
    first, last = objective.weights(0.0), objective.weights(1.0)
    return [
        [
            name,
            f"{first[name]:.4g}" if first[name] == last[name] else f"{first[name]:.4g} to {last[name]:.4g}",
            _term_words(weighted.term),
        ]
        for name, weighted in objective.terms.items()
    ]


def term_settings(objective: Objective) -> dict[str, str]:
    """The same, as a report shows how a student was trained."""
    return {f"term {name}": f"weight {weight}, {words.strip('`')}" for name, weight, words in term_rows(objective)}


def _term_words(term: Term) -> str:
    """The class of a term and what it was made with, layer map included."""
    names: list[str] = (
        [field.name for field in dataclasses.fields(term) if field.init] if dataclasses.is_dataclass(term) else []
    )
    options = {
        name: getattr(term, name) for name in names or inspect.signature(type(term)).parameters if hasattr(term, name)
    }
    words = ", ".join(f"{name}={_value_words(value)}" for name, value in options.items() if value is not None)
    return f"`{type(term).__name__}({words})`"


def _value_words(value: Any) -> str:
    if isinstance(value, functools.partial):
        bound = "".join(f", {name}={_value_words(inner)}" for name, inner in value.keywords.items())
        return f"{_value_words(value.func)}{bound}"
    return value.__name__ if callable(value) and hasattr(value, "__name__") else repr(value)

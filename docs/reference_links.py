"""Docstrings name each other as Transformers' do, [`Objective`]; on the site these names are links.

An extension of Griffe, which reads the sources for the reference pages.
"""

import re
from typing import Any

from griffe import Extension, NameResolutionError, Object


NAME = re.compile(r"\[`(?P<name>[A-Za-z_][\w.]*)`\](?![\[(])")
PACKAGE = "hf_distill"


class ReferenceLinks(Extension):
    """Give every [`Name`] the full path that the site knows it by."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = NAME.sub(lambda match: linked(match["name"], obj), obj.docstring.value)


def linked(name: str, obj: Object) -> str:
    """A link to what the name means where the object is defined."""
    first, _, rest = name.partition(".")
    try:
        path = obj.resolve(first)
    except NameResolutionError:
        path = f"{PACKAGE}.{first}"
    return f"[`{name}`][{path}{rest and '.' + rest}]"

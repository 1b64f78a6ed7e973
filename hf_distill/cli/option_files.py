"""Options in YAML, as the words that say the same on the command line."""

import json
from argparse import Action
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import yaml

from hf_distill.errors import ConfigurationError


BOOL, NULL = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null"


class PlainLoader(yaml.SafeLoader):  # type: ignore[misc]  # yaml ships no types
    """YAML without aliases, by which a few lines stand for more than fits into memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(problem="aliases (*name) are not read", problem_mark=mark)
        return super().compose_node(parent, index)


def plain_values(text: str, what: str) -> Any:
    """What a text in YAML says.

    Raises:
        ConfigurationError: if it cannot be read, naming it as `what`.
    """
    loader = _loader(text, what)
    return _said(loader.get_single_data, what)


def option_words(text: str, actions: Mapping[str, Action], what: str) -> list[str]:
    """The words of a file of `name: value`. A value counts as it is written: `no` is a text to an option of texts.

    Args:
        text: of the file.
        actions: the options that there are, by name.
        what: the name of the file.

    Raises:
        ConfigurationError: if it is no such file, or one of its names is no option.
    """
    loader = _loader(text, what)
    root = _said(loader.get_single_node, what)
    if not isinstance(root, yaml.MappingNode):
        raise ConfigurationError(f"{what} holds no `name: value`")
    words: dict[str, list[str]] = {}
    for key, node in root.value:
        name = str(key.value)
        if not isinstance(key, yaml.ScalarNode) or name not in actions:
            near = get_close_matches(name, actions, 1)
            raise ConfigurationError(f"{what}: {name} is no option" + (f"; is it {near[0]}?" if near else ""))
        if name in words:
            raise ConfigurationError(f"{what} says {name} twice")
        words[name] = list(_words(loader, actions[name], node, what))
    return [word for said in words.values() for word in said]


def _words(loader: PlainLoader, action: Action, node: yaml.Node, what: str) -> Iterator[str]:
    name = f"--{action.dest}"
    if isinstance(node, yaml.MappingNode):
        yield f"{name}={_said(lambda: json.dumps(loader.construct_document(node)), what)}"
    elif isinstance(node, yaml.SequenceNode):
        items = [str(item.value) for item in node.value if isinstance(item, yaml.ScalarNode) and item.tag != NULL]
        takes_several = action.nargs == "+"
        are_words = takes_several and len(items) > 1  # one may begin as an option does
        if len(items) < len(node.value) or (are_words and any(item.startswith("-") for item in items)):
            raise ConfigurationError(f"{what}: {action.dest} is a list of other things than words and numbers")
        yield from (name, *items) if are_words else (f"{name}={','.join(items)}",)
    elif node.tag != NULL:
        is_switch = action.nargs == "?" and node.tag == BOOL  # any of YAML's words for yes and no will do
        value = yaml.SafeLoader.bool_values[node.value.lower()] if is_switch else node.value
        yield f"{name}={str(value).lower() if is_switch else value}"


def _loader(text: str, what: str) -> PlainLoader:
    return _said(lambda: PlainLoader(text), what)  # type: ignore[no-any-return]


def _said(read: Any, what: str) -> Any:
    try:
        return read()
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # of a date, say, that there is not
        raise ConfigurationError(f"{what} cannot be read: {' '.join(str(error).split())}") from error

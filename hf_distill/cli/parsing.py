"""Options from the command line and from a file, by Transformers' own parser."""

import json
from argparse import Action, ArgumentDefaultsHelpFormatter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from hf_distill.cli.commands import Command


TRAINING_NOTE = """options of training: every field of `DistillationTrainingArguments` and of Transformers'
`TrainingArguments`, among them --output_dir, --temperature, --alpha, --learning_rate, --num_train_epochs,
--max_steps, --per_device_train_batch_size, --eval_strategy, --save_steps, --bf16, --seed. --help_all lists them."""
FILE_NOTE = """Any option may stand in a YAML file of `name: value`, which is then the first argument; what is said on
the command line counts. Exit codes: 0, 1 for an error, 2 for a wrong option, 130 after Ctrl-C, 143 after SIGTERM."""
FILE_SUFFIXES = (".yaml", ".yml", ".json")
ARROW = {int: "N", float: "X", str: "TEXT"}


class ShortHelp(ArgumentDefaultsHelpFormatter):
    """One spelling of each option, what kind of value it takes, and defaults where there is one."""

    def _format_action_invocation(self, action: Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        if action.choices is not None:
            value = "{" + ",".join(map(str, action.choices)) + "}"
        else:
            value = "" if action.nargs in (0, "?") else ARROW.get(action.type, "VALUE")  # type: ignore[call-overload]
        return f"{action.option_strings[0]} {value}".rstrip()

    def _get_help_string(self, action: Action) -> str | None:
        is_switch = action.default is None or action.default is False
        return action.help if is_switch else super()._get_help_string(action)


def parser_of(name: str, command: Command, with_training: bool) -> HfArgumentParser:
    """The parser of a command. With the options of training it needs torch."""
    groups: list[Any] = list(command.groups)
    if with_training:
        groups.append(import_module("hf_distill.training_args").DistillationTrainingArguments)
    return HfArgumentParser(
        groups,
        prog=f"hf-distill {name}",
        usage=f"hf-distill {name} [FILE.yaml] {command.example} …",
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
        epilog=f"{TRAINING_NOTE} {FILE_NOTE}" if command.trains else FILE_NOTE,
        formatter_class=ShortHelp,
        allow_abbrev=False,
    )


def parse(name: str, command: Command, words: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """The groups of options of a command, filled, and what of them was said in words or in a file.

    Raises:
        SystemExit: with 0 after `--help`, with 2 for what is no option, has a wrong value or is missing.
    """
    if {"-h", "--help"} & set(words):
        parser_of(name, command, with_training=False).parse_args(["--help"])
    parser = parser_of(name, command, with_training=command.trains)
    if "--help_all" in words:
        parser.parse_args(["--help"])
    words = with_file(parser, words)
    namespace = parser.parse_args(words)
    if command.trains and command.needs_output and namespace.output_dir is None:
        parser.error("the following arguments are required: --output_dir")
    options = {word.partition("=")[0] for word in words}
    said = [action.dest for action in parser._actions if options & set(action.option_strings)]
    values = ((name, getattr(namespace, name)) for name in dict.fromkeys(said))
    plain = {name: value.value if isinstance(value, Enum) else value for name, value in values}
    return list(parser.parse_args_into_dataclasses(words, look_for_args_file=False)), plain


def with_file(parser: HfArgumentParser, words: Sequence[str]) -> list[str]:
    """The words with those of the file that stands first, if one does, put before all others.

    What stands first and is no such file is the first option that is needed: `hf-distill shrink TEACHER …`.
    """
    if not words or words[0].startswith("-"):
        return list(words)
    path = Path(words[0])
    if path.suffix not in FILE_SUFFIXES:
        first = next(action for action in parser._actions if action.required)
        return [first.option_strings[0], *words]
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        parser.error(f"{words[0]} is no file of options: {' '.join(str(error).split())}")
    if not isinstance(options, Mapping):
        parser.error(f"{words[0]} holds no `name: value`")
    actions = {action.dest: action for action in parser._actions}
    for name in options:
        if name not in actions:
            near = get_close_matches(str(name), actions, 1)
            parser.error(f"{words[0]}: {name} is no option" + (f"; is it {near[0]}?" if near else ""))
    return [word for name, value in options.items() for word in _words(actions[name], value)] + list(words[1:])


def _words(action: Action, value: Any) -> list[str]:
    """An option of a file as it would stand on the command line, so that both are read alike."""
    name = f"--{action.dest}"
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"{name}={str(value).lower()}"]
    if isinstance(value, Mapping):
        return [f"{name}={json.dumps(value)}"]
    if isinstance(value, list):
        return [name, *map(str, value)] if action.nargs == "+" else [f"{name}={','.join(map(str, value))}"]
    return [f"{name}={value}"]

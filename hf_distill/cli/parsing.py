"""Options from the command line and from a file, by Transformers' own parser."""

from argparse import Action, ArgumentDefaultsHelpFormatter
from collections.abc import Sequence
from difflib import get_close_matches
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

from hf_distill.cli.arguments import COUNTS
from hf_distill.cli.commands import Command
from hf_distill.cli.option_files import option_words
from hf_distill.errors import ConfigurationError


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
        has_none = action.default is None or action.default is False or action.default == []
        return action.help if has_none else super()._get_help_string(action)


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
    namespace, strange = parser.parse_known_args(words)
    if strange:
        known = [name for action in parser._actions for name in action.option_strings[:1]]
        near = get_close_matches(strange[0].partition("=")[0], known, 1)
        parser.error(f"unrecognized arguments: {' '.join(strange)}" + (f"; is it {near[0]}?" if near else ""))
    if command.trains and command.needs_output and namespace.output_dir is None:
        parser.error("the following arguments are required: --output_dir")
    options = {word.partition("=")[0] for word in words}
    said = [action.dest for action in parser._actions if options & set(action.option_strings)]
    values = ((name, getattr(namespace, name)) for name in dict.fromkeys(said))
    plain = {name: value.value if isinstance(value, Enum) else value for name, value in values}
    groups = list(parser.parse_args_into_dataclasses(words, look_for_args_file=False))
    given = {name: value for group in groups for name, value in vars(group).items() if name in COUNTS}
    for option, number in given.items():
        if number is not None and number < 1:
            parser.error(f"argument --{option}: {number} is given, and it is a number of things: give 1 or more")
    return groups, plain


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
    actions = {action.dest: action for action in reversed(parser._actions)}  # of `--x` and `--no_x` the first
    try:
        given = option_words(path.read_text(encoding="utf-8"), actions, words[0])
    except (OSError, UnicodeDecodeError, ConfigurationError) as error:
        is_ours = isinstance(error, ConfigurationError)
        parser.error(str(error) if is_ours else f"{words[0]} cannot be read: {error}")
    return [*given, *words[1:]]

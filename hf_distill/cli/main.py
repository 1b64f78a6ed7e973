"""`hf-distill COMMAND …`: which command, and how it ends."""

import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from hf_distill.cli.arguments import ResumeOptions
from hf_distill.cli.commands import COMMANDS
from hf_distill.version import __version__


DEBUG = "--debug"
DEBUG_OPTIONS = ("underflow_overflow", "tpu_metrics_debug")
"""What the option of Transformers that has the same name takes; it takes no other value."""


def main(words: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        words: the command and its options; those of the process by default.

    Returns:
        The exit code: 0; 1 for an error, in one line, with its traceback only under `--debug`; 2 for a wrong option;
        130 after Ctrl-C, 143 after SIGTERM.
    """
    words = list(sys.argv[1:] if words is None else words)
    shows_traceback = False
    for index in range(len(words) - 1, -1, -1):
        if words[index] == DEBUG and words[index + 1 : index + 2] not in [[each] for each in DEBUG_OPTIONS]:
            shows_traceback = True
            del words[index]
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(__version__)
        return 0
    if words[0] not in COMMANDS:
        print(f"hf-distill: {words[0]!r} is no command; these are: {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    try:
        return run(words[0], words[1:])
    except SystemExit as end:  # from the parser, which has said why
        return end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt as stop:
        return say_stopped(stop, words[0])
    except Exception as error:
        if shows_traceback:
            traceback.print_exc()
        else:
            print(f"hf-distill: error: {in_one_line(error)} ({DEBUG} shows the traceback)", file=sys.stderr)
        return 1


def run(name: str, words: Sequence[str]) -> int:
    """Parse the options of a command and call it; its exit code."""
    groups, said = import_module("hf_distill.cli.parsing").parse(name, COMMANDS[name], words)
    import_module("hf_distill.models")  # which `import hf_distill` has left out, to start in time
    code: int | None = import_module(f"hf_distill.cli.{name}").run(*groups, said)
    return code or 0


def overview() -> str:
    """The commands, a line each."""
    lines = [f"  {name:<10} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: hf-distill COMMAND [FILE.yaml] [options]",
            "",
            "Make a big Transformer teach a small one.",
            "",
            *lines,
            "",
            "`hf-distill COMMAND --help` tells its options; --debug shows the traceback of an error; --version.",
        ]
    )


def say_stopped(stop: KeyboardInterrupt, name: str) -> int:
    """Say that a run of a command was stopped, and how it goes on; the exit code."""
    number = getattr(stop, "signal_number", 2)
    how = "go on with --resume" if ResumeOptions in COMMANDS[name].groups else "give the same command again"
    print(f"hf-distill: {in_one_line(stop) if str(stop) else 'stopped'}; {how}.", file=sys.stderr)
    return 128 + int(number)


def in_one_line(error: BaseException) -> str:
    """The message, with the kind of error where it is not one of ours."""
    message = " ".join(str(error).split())
    is_ours = type(error).__module__.startswith("hf_distill")
    return message if is_ours else f"{type(error).__name__}: {message}"

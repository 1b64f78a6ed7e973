"""The command line: arguments in, calls out.

`arguments` and `commands` say what can be asked for, without torch; the module of a command's name calls the library.
"""

from hf_distill.cli.main import main


__all__ = ["main"]

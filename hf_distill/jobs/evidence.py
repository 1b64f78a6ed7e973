"""What a job has found out so far, in a file that a resumed job goes on with."""

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import yaml
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers.utils import logging

from hf_distill.errors import ConfigurationError
from hf_distill.whole_files import write_whole


logger = logging.get_logger(__name__)

EVIDENCE = "evidence.json"
ARGUMENTS = "arguments.yaml"
WRITTEN = ("config.json", "*.safetensors", "README.md", "trainer_state.json", "checkpoint-*", "baseline", "report")
"""What a job writes besides."""


class Evidence:
    """Measurements by name, kept in `evidence.json` as soon as they are there.

    Args:
        folder: of the job.
        writes: whether this process writes the file; with several one of them does.
    """

    def __init__(self, folder: str | Path, writes: bool = True) -> None:
        self.path, self.writes = Path(folder) / EVIDENCE, writes
        self.found: dict[str, Any] = _kept(self.path, json.loads) if self.path.is_file() else {}

    def measured(self, name: str, measure: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """What `measure` gives, or what an earlier run of the job has kept of it.

        With several processes it is what the first one has measured, since times differ.
        """
        if name not in self.found:
            (self.found[name],) = broadcast_object_list([dict(measure())])
            self.save()
        found: Mapping[str, Any] = self.found[name]
        return found

    def tell(self, what: str) -> None:
        """Say what the job does next."""
        if self.writes:
            print(f"\n{what}", flush=True)

    def save(self) -> None:
        """Write the file, all of it or nothing."""
        if self.writes:
            write_whole(self.path, json.dumps(self.found, indent=2) + "\n")


def open_job(folder: str | Path, arguments: Mapping[str, Any], resume: bool, writes: bool = True) -> Evidence:
    """The evidence of a job that starts or goes on, its arguments kept beside it in `arguments.yaml`.

    Raises:
        ConfigurationError: if the folder holds another job, and it is not said that this one goes on, or a file of
            the job is damaged; or if it holds what no job has written, and would be lost.
    """
    path = Path(folder) / ARGUMENTS
    if not path.is_file():
        check_nothing_is_lost(folder)
    else:
        before = arguments_of(folder)
        has_begun = any(each.name != ARGUMENTS for each in Path(folder).iterdir())
        if not resume and has_begun:
            raise ConfigurationError(
                f"output_dir={str(folder)!r} holds a job that was started before. Go on with it by `resume`, or take "
                "another folder."
            )
        changed = _changes(before, arguments, ("resume",)) if has_begun else ""
        if changed:
            logger.warning(f"The job goes on with other arguments than it was started with ({changed}).")
    _keep(path, arguments, writes)
    return Evidence(folder, writes)


def open_search(
    folder: str | Path, arguments: Mapping[str, Any], changeable: Collection[str], writes: bool = True
) -> None:
    """Keep the arguments of a search in `arguments.yaml`. It goes on with what it has tried, so they stay the same.

    Args:
        folder: of the search.
        arguments: what was said.
        changeable: the names of arguments that say how much is tried, and where.
        writes: whether this process writes the file.

    Raises:
        ConfigurationError: if others were given before, with which what was tried cannot be compared.
    """
    path = Path(folder) / ARGUMENTS
    if path.is_file() and any(each.name != ARGUMENTS for each in Path(folder).iterdir()):
        changed = _changes(arguments_of(folder), arguments, changeable)
        if changed:
            raise ConfigurationError(
                f"output_dir={str(folder)!r} holds what was tried with other arguments ({changed}), so the best of "
                "both would compare what cannot be compared. Give those of before, or take another folder."
            )
    _keep(path, arguments, writes)


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], changeable: Collection[str]) -> str:
    names = (name for name in {**before, **now} if name not in changeable and before.get(name) != now.get(name))
    return ", ".join(f"{name}: {before.get(name)!r} before, {now.get(name)!r} now" for name in names)


def _keep(path: Path, arguments: Mapping[str, Any], writes: bool) -> None:
    PartialState().wait_for_everyone()  # or another process takes this one's file for an earlier job's
    if writes:
        write_whole(path, yaml.safe_dump(dict(arguments), sort_keys=False, allow_unicode=True))


def check_nothing_is_lost(folder: str | Path) -> None:
    """A model and what is told of it may be written there.

    Raises:
        ConfigurationError: if something of their names is there.
    """
    names = sorted(path.name for pattern in WRITTEN for path in Path(folder).glob(pattern))
    if names:
        raise ConfigurationError(
            f"output_dir={str(folder)!r} holds {', '.join(names)} of something else, which would be lost. Name a new "
            "folder."
        )


def arguments_of(folder: str | Path) -> dict[str, Any]:
    """What was said to the job that has left its model in a folder; nothing, if none has.

    Raises:
        ConfigurationError: if the file was changed or damaged since.
    """
    path = Path(folder) / ARGUMENTS
    return _kept(path, yaml.safe_load) if path.is_file() else {}


def _kept(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """What an earlier run has written.

    Raises:
        ConfigurationError: if the file was changed or damaged since.
    """
    try:
        found = parse(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        found = " ".join(str(error).split())
    if not isinstance(found, dict):
        raise ConfigurationError(
            f"{path} is not as this job has written it ({found!r}), so the job cannot go on. Restore the file, or "
            "take another output_dir."
        )
    return found


def table(found: Mapping[str, Any]) -> str:
    """The measured models below each other, their scores beside each other, losses left out."""
    rows = {name: measured for name, measured in found.items() if "scores" in measured}
    scores = dict.fromkeys(name for row in rows.values() for name in row["scores"] if not name.startswith("loss"))
    width = max(16, *map(len, rows))
    lines = [f"{'model':<{width}} {'parameters':>12} " + " ".join(f"{name:>12}" for name in scores)]
    for name, row in rows.items():
        numbers = (row["scores"].get(score) for score in scores)
        cells = (f"{'-':>12}" if number is None else f"{number:>12.4g}" for number in numbers)
        lines.append(f"{name:<{width}} {row['parameters']:>12,} " + " ".join(cells))
    return "\n".join(lines)

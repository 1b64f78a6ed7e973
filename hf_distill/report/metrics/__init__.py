"""Metrics of a distillation as modules of `evaluate`, each in a folder that is also a Space of the Hub."""

from pathlib import Path

import evaluate

from hf_distill.errors import ConfigurationError


FOLDER = Path(__file__).parent


def load(name: str) -> evaluate.EvaluationModule:
    """A metric by its name: "agreement", "calibration" or "retention". It needs no network.

    Raises:
        ConfigurationError: if there is no metric of that name.

    Example:

        >>> load("agreement").compute(predictions=[0, 1, 1, 2], references=[0, 1, 2, 2])
        {'agreement': 0.75}
    """
    names = sorted(path.name for path in FOLDER.iterdir() if (path / f"{path.name}.py").exists())
    if name not in names:
        raise ConfigurationError(f"there is no metric {name!r}. `name` must be one of {', '.join(names)}.")
    return evaluate.load(str(FOLDER / name))

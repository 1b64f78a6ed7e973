"""Other libraries, where they are installed, and the reason where they are not."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple


MODULES = {
    "liger-kernel": "liger_kernel.chunked_loss",
    "trl": "trl.experimental.gkd",
    "textbrewer": "textbrewer",
    "torchdistill": "torchdistill.losses.mid_level",
    "nvidia-modelopt": "modelopt.torch.distill.plugins.huggingface",
}
"""By the name on PyPI, what is imported of each."""

DISTILLKIT = "DistillKit"
"""It is on GitHub alone: https://github.com/arcee-ai/DistillKit."""

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")


class Contender(NamedTuple):
    """What one library, or none, does in a comparison."""

    name: str
    run: Callable[..., Any]
    library: str | None = None
    note: str = ""


class Libraries:
    """What is there: `versions` of the libraries that import, `reasons` for the others."""

    def __init__(self, distillkit: Path | None) -> None:
        self.versions: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        for name, module in MODULES.items():
            self._try(name, module, version)
        if distillkit is None:
            self.reasons[DISTILLKIT] = "no checkout given: --distillkit FOLDER"
        else:
            sys.path.append(str(distillkit))
            self._try(DISTILLKIT, "distillkit.lossfuncs.kl", lambda _: _commit(distillkit))

    def present(self, contenders: list[Contender]) -> list[Contender]:
        """Those whose library is there."""
        return [each for each in contenders if each.library is None or each.library in self.versions]

    def table(self) -> str:
        """Every library with its version, or the reason why it is not there."""
        rows = [f"| {name} | {found} |" for name, found in (self.versions | self.reasons).items()]
        return "\n".join(["| library | |", "|---|---|", *rows])

    def _try(self, name: str, module: str, version_of: Callable[[str], str]) -> None:
        try:
            found = version_of(name)
        except PackageNotFoundError:
            self.reasons[name] = f"not installed: pip install {name}"
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import_module(module)
        except Exception as error:  # whatever a library of another year stumbles over
            self.reasons[name] = f"{found} does not import: {type(error).__name__}: {error}"
        else:
            self.versions[name] = found


def _commit(folder: Path) -> str:
    command = ["git", "-C", str(folder), "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

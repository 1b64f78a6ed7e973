"""How long the command line takes to answer, beside `import transformers` alone.

    python benchmarks/startup.py

Each is a Python of its own, in turn, with the files in the system's memory. Aimed at: at most 1.5 times.
"""

import argparse
import subprocess
import sys
from functools import partial

import torch
from measuring import in_turn, ratio, save

from hf_distill.stopwatch import seconds_of


IMPORT = "import transformers"
COMMANDS = {
    IMPORT: ("-c", IMPORT),
    "hf-distill --help": ("-m", "hf_distill", "--help"),
    "hf-distill distill --help": ("-m", "hf_distill", "distill", "--help"),
    "hf-distill shrink --help": ("-m", "hf_distill", "shrink", "--help"),
    "import hf_distill": ("-c", "import hf_distill"),
}
AIM = 1.5


def seconds(words: tuple[str, ...]) -> float:
    call = partial(subprocess.run, [sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return seconds_of(call, torch.device("cpu"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    contenders = {name: partial(seconds, words) for name, words in COMMANDS.items()}
    in_turn(contenders, 1)  # reads the files
    figures = in_turn(contenders, rounds)
    ratios = {name: ratio(figures, name, IMPORT) for name in COMMANDS if name != IMPORT}
    lines = ["| command | seconds, median | beside `import transformers` |", "|---|---|---|"]
    for name, times in figures.items():
        beside = "1" if name == IMPORT else f"{ratios[name]:.2f}"
        lines.append(f"| `{name}` | {sorted(times)[len(times) // 2]:.2f} | {beside} |")
    lines.append("")
    lines.append(f"Aimed at: at most {AIM} for `hf-distill --help`.")
    save("startup", {"seconds": figures, "ratios": ratios}, "\n".join(lines))


if __name__ == "__main__":
    main()

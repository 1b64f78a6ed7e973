"""Tries a thing on many random cases, each in a process that may crash, hang or take all memory without harm."""

import argparse
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any


sys.path.append(str(Path(__file__).parents[1]))  # a script, not a package: beside it lies what benchmarks share

from measuring import save


Case = Callable[[random.Random], str]
"""Tries one thing, and says how that ended. Whatever it raises is a fault of what is tried."""

CASES_PER_PROCESS = 500
SECONDS_PER_CASE = 60
"""After so many it is said to hang. The slowest takes a second, on a machine that has nothing else to do."""
SPARE_BYTES = 2**30
"""What a case may allocate. A size that is believed unseen asks for more."""


def battery(case: Case, num_cases: int, seed: int) -> dict[str, Any]:
    """How so many cases ended, and the faults: (number of the case, what was raised or how its process ended)."""
    outcomes: Counter[str] = Counter()
    faults: list[tuple[int, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        done = 0
        while done < num_cases:
            numbers = range(done, min(num_cases, done + CASES_PER_PROCESS))
            end = _in_a_process(case, numbers, seed, log)
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            done += len(lines)
            outcomes.update(outcome for _, outcome, fault in lines if fault is None)
            faults += [(number, fault) for number, _, fault in lines if fault is not None]
            if end is not None:
                faults.append((done, end))
                done += 1
    return {"cases": num_cases, "outcomes": dict(sorted(outcomes.items())), "faults": faults}


def case_of(seed: int, number: int) -> random.Random:
    """The random numbers of one case, so that it can be tried again alone."""
    return random.Random(f"{seed} {number}")


def _in_a_process(case: Case, numbers: range, seed: int, log: Path) -> str | None:
    """How the process ended, where not by itself."""
    log.write_text("")
    process = multiprocessing.get_context("fork").Process(target=_try_all, args=(case, numbers, seed, log))
    process.start()
    seen = -1
    while process.is_alive():
        process.join(SECONDS_PER_CASE)
        if process.is_alive() and log.stat().st_size == seen:
            process.kill()
            process.join()
            return f"hangs for {SECONDS_PER_CASE} seconds"
        seen = log.stat().st_size
    return None if process.exitcode == 0 else f"ends its process with {process.exitcode}"


def _try_all(case: Case, numbers: range, seed: int, log: Path) -> None:
    warnings.simplefilter("ignore")
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + SPARE_BYTES,) * 2)
    with log.open("a", buffering=1) as file:
        for number in numbers:
            outcome, fault = "", None
            try:
                outcome = case(case_of(seed, number))
            except Exception:
                fault = traceback.format_exc()
            print(json.dumps([number, outcome, fault]), file=file)


def noise(content: bytes, draw: random.Random) -> bytes:
    return draw.randbytes(draw.choice((0, 1, 7, len(content), 2 * len(content))))


def flips(content: bytes, draw: random.Random) -> bytes:
    flipped = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 16))):
        flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
    return bytes(flipped)


def truncation(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))]


def insertion(content: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(content) + 1)
    return content[:place] + draw.randbytes(draw.choice((1, 8, 64))) + content[place:]


def number(content: bytes, draw: random.Random) -> bytes:
    """A length or an offset, which Arrow's frames are made of, becomes another one."""
    place, size = draw.randrange(len(content)), draw.choice((4, 8))
    hostile = draw.choice((-1, 0, 1, 2**31 - 1, -(2**31), draw.getrandbits(31)))
    return content[:place] + hostile.to_bytes(size, "little", signed=True) + content[place + size :]


BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (noise, flips, truncation, insertion, number)


def run_script(what: str | None, name: str, fuzz: Callable[[Path, int, int], dict[str, Any]]) -> None:
    """Ask the command line how many cases to try, and write `results/<name>.json` and `.md`."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = fuzz(Path(folder), arguments.cases, arguments.seed)
    ends = [*results["outcomes"].items(), ("**a fault**", len(results["faults"]))]
    lines = ["| end | cases |", "|---|---|", *(f"| {end} | {count} |" for end, count in ends)]
    save(name, {"seed": arguments.seed, **results}, "\n".join(lines))

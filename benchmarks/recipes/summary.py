"""What was measured so far, as a file that grows run by run and as a page."""

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from measuring import circumstances
from plan import Setting
from ways import WAYS


class Record:
    """`recipes.json` and `recipes.md` in a folder. A record of another teacher is begun anew."""

    def __init__(self, folder: Path, teacher: dict[str, Any], plan: Mapping[str, list[Setting]]):
        folder.mkdir(parents=True, exist_ok=True)
        self.file, self.plan = folder / "recipes.json", plan
        known = json.loads(self.file.read_text()) if self.file.is_file() else {}
        fresh: dict[str, Any] = {"circumstances": [], "teacher": teacher, "speed": {}, "runs": {}}
        self.content = known if known.get("teacher") == teacher else fresh

    def has(self, setting: Setting, seed: int) -> bool:
        return str(seed) in self.content["runs"].get(setting.key, {"seeds": {}})["seeds"]

    def add(self, setting: Setting, seed: int, run: dict[str, Any]) -> None:
        entry = self.content["runs"].setdefault(setting.key, {"setting": asdict(setting), "seeds": {}})
        entry["seeds"][str(seed)] = run
        print(f"{setting.key}; seed {seed}: {run}", flush=True)
        self.save()

    def add_speed(self, speed: dict[str, dict[str, float]]) -> None:
        self.content["speed"] = speed
        self.save()

    def save(self) -> None:
        where = circumstances()
        if where not in self.content["circumstances"]:
            self.content["circumstances"].append(where)
        self.file.write_text(json.dumps(self.content, indent=1, ensure_ascii=False) + "\n")
        self.file.with_suffix(".md").write_text(page(self.content, self.plan))


def by_seed(content: dict[str, Any], setting: Setting) -> dict[str, dict[str, Any]]:
    return content["runs"].get(setting.key, {"seeds": {}})["seeds"]


def kept(content: dict[str, Any], runs: Iterable[dict[str, Any]]) -> float:
    """The share of the teacher's accuracy that students have on average."""
    return statistics.mean(run["accuracy"] for run in runs) / content["teacher"]["accuracy"]


def range_of(scores: list[float]) -> str:
    """Mean, and smallest to largest."""
    ends = f"{min(scores):.3f} to {max(scores):.3f}; {len(scores)} seeds" if len(scores) > 1 else "1 seed"
    return f"{statistics.mean(scores):.3f} ({ends})"


def gain(content: dict[str, Any], setting: Setting) -> str:
    """In points, what a way has over labels alone with the same seed and steps."""
    ours, theirs = by_seed(content, setting), by_seed(content, replace(setting, way="labels alone"))
    gains = [100 * (ours[seed]["accuracy"] - theirs[seed]["accuracy"]) for seed in ours if seed in theirs]
    if not gains or setting.way == "labels alone":
        return "–"
    return f"{statistics.mean(gains):+.1f} ({', '.join(f'{each:+.1f}' for each in gains)})"


def students(content: dict[str, Any], settings: Iterable[Setting]) -> str:
    """A table of what was measured, one line a setting."""
    lines = [
        "| training | layers | steps × rows | rate | accuracy | kept | over labels alone | as teacher | seconds |",
        "|---" * 9 + "|",
    ]
    for setting in settings:
        if runs := list(by_seed(content, setting).values()):
            agreement, seconds = (statistics.mean(run[name] for run in runs) for name in ("agreement", "seconds"))
            lines.append(
                f"| {setting.way} | {', '.join(map(str, setting.layers))} | {setting.steps} × {setting.batch_size} "
                f"| {setting.rate:g} | {range_of([run['accuracy'] for run in runs])} | {kept(content, runs):.1%} "
                f"| {gain(content, setting)} | {agreement:.1%} | {seconds:.0f} |"
            )
    return "\n".join(lines)


def speed_table(content: dict[str, Any]) -> str:
    sizes = {"teacher": content["teacher"]["parameters"]}
    for entry in content["runs"].values():
        for run in entry["seeds"].values():
            sizes[f"{len(entry['setting']['layers'])} layers"] = run["parameters"]
    lines = ["| model | parameters | one sentence | sentences a second |", "|---|---|---|---|"]
    for name, speed in content["speed"].items():
        lines.append(
            f"| {name} | {sizes.get(name, 0) / 1e6:.2f}M | {speed['latency']:.2f} ms ({speed['latency_gain']:.2f}×) "
            f"| {speed['throughput']:.0f} ({speed['throughput_gain']:.2f}×) |"
        )
    return "\n".join(lines)


NOTES = """\
Mean (smallest to largest) over the seeds. *Kept* is the mean accuracy over the teacher's; *over labels alone* are
points of difference with the same seed, steps and rows, mean (seed by seed); *as teacher* is the share of rows with
the teacher's answer; *seconds* are processor time of one training. Layers are those of the teacher that the student
starts with, counted from 0; all else is copied. Where there are two stages, each has half of the steps. One row of 872
is 0.1 points, and the standard error of an accuracy near 0.85 is 1.2 points."""


def with_first_seed(content: dict[str, Any]) -> dict[str, Any]:
    runs = {key: {**run, "seeds": dict(list(run["seeds"].items())[:1])} for key, run in content["runs"].items()}
    return {**content, "runs": runs}


def page(content: dict[str, Any], plan: Mapping[str, list[Setting]]) -> str:
    parts = [
        "# Which recipe keeps most of an encoder, on SST-2?",
        f"The teacher has {content['teacher']['accuracy']:.3f} on the 872 validation rows.",
    ]
    parts_of_it = ("ways", "others", "longer", "longest")
    trained = list(dict.fromkeys(setting for part in parts_of_it for setting in plan[part]))
    for depth in dict.fromkeys(len(setting.layers) for setting in trained):
        of_depth = [setting for setting in trained if len(setting.layers) == depth]
        parts += [f"## {depth} layers", students(content, of_depth)]
    ways = ["| training | how |", "|---|---|", *(f"| {name} | {way.how} |" for name, way in WAYS.items())]
    measured = [", ".join(f"{key} {value}" for key, value in where.items()) for where in content["circumstances"]]
    parts.append(NOTES)
    if content["speed"]:
        how = "In float32, one thread, medians of rounds in turn; one sentence of the rows, or batches of 64 of them."
        parts += ["## Speed", speed_table(content), how]
    if any(by_seed(content, setting) for setting in plan["choices"]):
        title = "## What was tried to choose the layers and the learning rate"
        parts += [title, students(with_first_seed(content), plan["choices"])]
    parts += ["## What was run", "\n".join(ways)]
    parts += [f"Measured by `benchmarks/recipes/run.py`: {where}." for where in measured]
    return "\n\n".join(parts) + "\n"

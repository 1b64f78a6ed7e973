"""What was measured so far, as a file that grows run by run and as a page."""

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict
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


def runs_of(content: dict[str, Any], setting: Setting) -> list[dict[str, Any]]:
    return list(content["runs"].get(setting.key, {"seeds": {}})["seeds"].values())


def kept(content: dict[str, Any], runs: Iterable[dict[str, Any]]) -> float:
    """The share of the teacher's accuracy that students have on average."""
    return statistics.mean(run["accuracy"] for run in runs) / content["teacher"]["accuracy"]


def cells(content: dict[str, Any], setting: Setting) -> str:
    """Accuracy, what is kept of the teacher's, and agreement with it."""
    runs = runs_of(content, setting)
    if not runs:
        return "– | – | –"
    scores = [run["accuracy"] for run in runs]
    spread = f" ({min(scores):.3f} to {max(scores):.3f})" if len(runs) > 1 else " (one seed)"
    agreement = statistics.mean(run["agreement"] for run in runs)
    return f"{statistics.mean(scores):.3f}{spread} | {kept(content, runs):.1%} | {agreement:.1%}"


def by_depth(content: dict[str, Any], settings: list[Setting]) -> str:
    """A table with a row for each way and each number of steps, and columns for each depth."""
    rows: dict[tuple[str, int], dict[int, Setting]] = {}
    for setting in settings:
        rows.setdefault((setting.way, setting.steps), {})[len(setting.layers)] = setting
    depths = sorted({len(setting.layers) for setting in settings}, reverse=True)
    head = " | ".join(f"{depth} layers | kept | as the teacher" for depth in depths)
    lines = [f"| training | {head} | seconds |", "|---" * (2 + 3 * len(depths)) + "|"]
    for (way, _), of_depth in rows.items():
        found = [run["seconds"] for setting in of_depth.values() for run in runs_of(content, setting)]
        if found:
            columns = " | ".join(cells(content, of_depth[depth]) if depth in of_depth else "| |" for depth in depths)
            lines.append(f"| {way} | {columns} | {statistics.median(found):.0f} |")
    return "\n".join(lines)


def one_by_one(content: dict[str, Any], settings: list[Setting]) -> str:
    lines = [
        "| training | the teacher's layers | learning rate | accuracy | kept | as the teacher |",
        "|---" * 6 + "|",
    ]
    lines += [
        f"| {setting.way} | {', '.join(map(str, setting.layers))} | {setting.rate:g} | {cells(content, setting)} |"
        for setting in settings
        if runs_of(content, setting)
    ]
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
Mean (smallest to largest) over the seeds. *Kept* is the mean accuracy over the teacher's, *as the teacher* the share
of rows with the teacher's answer, *seconds* processor time of one training. One row of 872 is 0.1 points, and one
standard error of an accuracy near 0.9 is 1.0 points: differences below that say nothing about other sentences."""


def page(content: dict[str, Any], plan: Mapping[str, list[Setting]]) -> str:
    first = plan["ways"][0]
    parts = [
        "# Which recipe keeps most of an encoder, on SST-2?",
        f"Teacher: {content['teacher']['accuracy']:.3f} on the 872 validation rows. All students below have the "
        f"teacher's layers {' and '.join(layer_choices(plan['ways']))} at the start (counted from 0), and were "
        f"trained for {first.steps} steps of {first.batch_size} rows out of 67,349 at a learning rate of "
        f"{first.rate:g}; where there are two stages, half of the steps each.",
        by_depth(content, plan["ways"]),
        NOTES,
        "## Longer",
        by_depth(content, plan["longer"]),
        "## Speed",
        speed_table(content),
        "## How layers and learning rate were chosen",
        one_by_one(content, plan["choices"]),
        "## What was run",
        "\n".join(["| training | how |", "|---|---|", *(f"| {name} | {way.how} |" for name, way in WAYS.items())]),
        *(
            ", ".join(f"{key} {value}" for key, value in where.items()).join(
                ("Measured by `benchmarks/recipes/run.py`: ", ".")
            )
            for where in content["circumstances"]
        ),
    ]
    return "\n\n".join(parts) + "\n"


def layer_choices(settings: list[Setting]) -> list[str]:
    return list(dict.fromkeys(", ".join(map(str, setting.layers)) for setting in settings))

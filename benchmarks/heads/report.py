"""The table over all heads, from results that were measured one by one."""

import json
import statistics
from pathlib import Path
from typing import Any


NOTES = """\
Each student has three seeds: mean (smallest to largest). *Gain* is the difference of the means, positive where
distilling helped; **≈** marks a gain that is no larger than the wider of the two ranges. *Kept* is the student's score
over the teacher's (for perplexities and losses the teacher's over the student's), without and with distilling.
Both students have the same rows, batches, steps and initial weights; each has its own best learning rate of a grid,
chosen with seed 0 on the evaluation rows, alike for both, so all scores are a little too good. T and α are the
library's defaults for every job but the detector's, which has `recipes.hungarian_matching()` as it is; *distilled
without labels* sees the teacher's answers alone (α = 0) on more rows. Each job has minutes of one core, so models are
small and far from converged. A row whose students hardly beat chance (0.5 for QNLI, 0 for STS-B and CoLA) says little
about distilling; where a student starts as a part of the fine-tuned teacher, labels alone start there too, so the
teacher has helped both. Error rates of characters, F1, BLEU and ROUGE-L are in percent. The seconds leave out a
teacher that was kept from an earlier run."""


def scores_of(job: dict[str, Any], arm: str) -> list[float]:
    return [run[job["score"]] for run in job["arms"][arm]["runs"]]


def gain(job: dict[str, Any], arm: str) -> float:
    """By how much the mean is better than that of the student on labels alone."""
    difference = statistics.mean(scores_of(job, arm)) - statistics.mean(scores_of(job, "labels alone"))
    return -difference if job["lower_is_better"] else difference


def is_within_spread(job: dict[str, Any], arm: str) -> bool:
    """Whether a gain is no larger than the wider of the two ranges over seeds."""
    ranges = [max(scores) - min(scores) for scores in (scores_of(job, arm), scores_of(job, "labels alone"))]
    return abs(gain(job, arm)) <= max(ranges)


def kept(job: dict[str, Any], arm: str) -> float:
    """The share of the teacher's score that a student has."""
    student, teacher = statistics.mean(scores_of(job, arm)), job["teacher"][job["score"]]
    return teacher / student if job["lower_is_better"] else student / teacher


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _cell(job: dict[str, Any], arm: str) -> str:
    scores = scores_of(job, arm)
    return f"{_number(statistics.mean(scores))} ({_number(min(scores))} to {_number(max(scores))})"


def _gain_cell(job: dict[str, Any], arm: str) -> str:
    value = gain(job, arm)
    return f"{'≈ ' if is_within_spread(job, arm) else ''}{'+' if value >= 0 else '−'}{_number(abs(value))}"


def _rows(job: dict[str, Any]) -> list[str]:
    """One row for each way of distilling."""
    labels = "labels alone"
    parameters = [job["teacher"]["parameters"], job["arms"][labels]["runs"][0]["parameters"]]
    sizes = " → ".join(f"{number / 1e6:.2f}M" for number in parameters)
    teacher = _number(job["teacher"][job["score"]])
    score = f"{job['score']}{' ↓' if job['lower_is_better'] else ''}"
    return [
        f"| {job['head']} | {job['data'].split(',')[0]}{'' if arm == 'distilled' else ', ' + arm} | {score} | {sizes} "
        f"| {teacher} | {_cell(job, labels)} | {_cell(job, arm)} | {_gain_cell(job, arm)} "
        f"| {kept(job, labels):.1%} → {kept(job, arm):.1%} |"
        for arm in job["arms"]
        if arm != labels
    ]


def table(jobs: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| head | data | score | parameters | teacher | labels alone | distilled | gain | kept |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for job in jobs.values():
        lines += _rows(job)
    return "\n".join(lines)


def protocol(jobs: dict[str, dict[str, Any]]) -> str:
    """What each job was, and where and when it was measured."""
    lines = [
        "| job | data | models | steps | learning rates, tried → chosen | other scores | measured |",
        "|---" * 7 + "|",
    ]
    for name, job in jobs.items():
        rates = "; ".join(f"{arm}: {', '.join(kind['tried'])} → {kind['rate']:g}" for arm, kind in job["arms"].items())
        where = job["circumstances"]
        lines.append(
            f"| {name} | {job['data']} | {job['models']} | teacher {job['teacher_steps']}, students {job['steps']}, "
            f"of {job['batch_size']} rows{', bfloat16' if job['bf16'] else ''} | {rates} | {_other_scores(job)} "
            f"| {where['date']}, {job['processor_seconds']} s of one core, hf_distill {where['hf_distill']}, torch "
            f"{where['torch']}, transformers {where['transformers']}, {where['processor']}, python {where['python']} |"
        )
    return "\n".join(lines)


def _other_scores(job: dict[str, Any]) -> str:
    names = [name for name in job["teacher"] if name not in (job["score"], "parameters")]
    texts = []
    for name in names:
        means = [
            f"{_number(statistics.mean(run[name] for run in kind['runs']))} {arm}" for arm, kind in job["arms"].items()
        ]
        texts.append(f"{name}: {_number(job['teacher'][name])} teacher, {', '.join(means)}")
    return "; ".join(texts) or "–"


def merge(name: str, results: dict[str, Any], folder: Path, order: list[str]) -> None:
    """Put one job's results into `heads.json` and write `heads.md` anew."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "heads.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    known[name] = results
    jobs = {job: known[job] for job in order if job in known}
    file.write_text(json.dumps(jobs, indent=1, ensure_ascii=False) + "\n")
    page = (
        f"# Does distilling help, head by head?\n\n{table(jobs)}\n\n{NOTES}\n\n## What was run\n\n{protocol(jobs)}\n"
    )
    (folder / "heads.md").write_text(f"{page}\nMeasured by `benchmarks/heads/run.py`.\n")
    print(table({name: results}), flush=True)

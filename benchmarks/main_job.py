"""The evidence in the README: distilled against labels alone, three seeds, each at its own best learning rate.

    python benchmarks/main_job.py

One teacher; then every learning rate with every seed, for both students; the table shows the best rate of each.
"""

import argparse
import importlib.util
import statistics
from pathlib import Path
from typing import Any

from measuring import save


EXAMPLE = Path(__file__).parents[1] / "examples" / "distill_language_model.py"


def load_example() -> Any:
    specification = importlib.util.spec_from_file_location("distill_language_model", EXAMPLE)
    example = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    return example


def table(results: dict[str, Any]) -> str:
    """Both students at their best learning rate, and the mean at every rate."""
    runs, rates = results["runs"], list(results["runs"]["student"])
    means = {
        name: {rate: statistics.mean(row["perplexity"] for row in runs[name][rate]) for rate in rates} for name in runs
    }
    best = {name: runs[name][min(rates, key=means[name].__getitem__)] for name in runs}
    lines = [
        "| model | parameters | validation perplexity, seed by seed | mean | agreement with the teacher |",
        "|---|---|---|---|---|",
    ]
    for name, rows in {"teacher": [results["teacher"]], **best}.items():
        seeds = ", ".join(f"{row['perplexity']:.2f}" for row in rows)
        perplexity, agreement = (statistics.mean(row[key] for row in rows) for key in ("perplexity", "agreement"))
        lines.append(f"| {name} | {rows[0]['parameters']:,} | {seeds} | {perplexity:.2f} | {agreement:.1%} |")
    lines.append(f"\nMean perplexity after {results['student_steps']} steps at each learning rate:\n")
    lines.append(f"| model | {' | '.join(f'{float(rate):g}' for rate in rates)} |")
    lines.append("|---" * (1 + len(rates)) + "|")
    lines += [f"| {name} | {' | '.join(f'{mean:.2f}' for mean in means[name].values())} |" for name in runs]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--learning_rates", type=float, nargs="+", default=[8e-3, 1.6e-2, 3.2e-2, 6.4e-2])
    parser.add_argument("--output_dir", default="outputs/main_job")
    arguments = parser.parse_args()

    example = load_example()
    job = example.JobArguments(output_dir=arguments.output_dir)
    work = example.MainJob.prepare(job)
    teacher = work.teacher()
    teacher_row = work.measure("teacher", teacher, teacher)

    def trained(name: str, seed: int, learning_rate: float) -> dict[str, Any]:
        student = work.student(seed)
        work.fit(name, student, job.student_steps, learning_rate, seed, teacher if name == "distilled" else None)
        return {"seed": seed, "learning_rate": learning_rate, **work.measure(name, student, teacher)}

    runs = {
        name: {rate: [trained(name, seed, rate) for seed in arguments.seeds] for rate in arguments.learning_rates}
        for name in ("student", "distilled")
    }
    results = {"student_steps": job.student_steps, "teacher": teacher_row, "runs": runs}
    save("main_job", results, table(results))


if __name__ == "__main__":
    main()

"""The evidence in the README: distilled against labels alone, three seeds, each at its own best learning rate.

    python benchmarks/main_job.py

One teacher; then every learning rate with the first seed, for both students; then all seeds at the best of each.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--learning_rates", type=float, nargs="+", default=[8e-3, 1.6e-2, 3.2e-2])
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

    grid = {
        name: [trained(name, arguments.seeds[0], lr) for lr in arguments.learning_rates]
        for name in ("student", "distilled")
    }
    best = {name: min(rows, key=lambda row: row["perplexity"]) for name, rows in grid.items()}
    runs = {
        name: [row, *(trained(name, seed, row["learning_rate"]) for seed in arguments.seeds[1:])]
        for name, row in best.items()
    }

    lines = [
        "| model | parameters | perplexity by seed | mean | agreement with the teacher | tokens/s |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in {"teacher": [teacher_row], **runs}.items():
        seeds = ", ".join(f"{row['perplexity']:.2f}" for row in rows)
        mean = {
            key: statistics.mean(row[key] for row in rows) for key in ("perplexity", "agreement", "tokens_per_second")
        }
        lines.append(
            f"| {name} | {rows[0]['parameters']:,} | {seeds} | {mean['perplexity']:.2f} | {mean['agreement']:.1%} | "
            f"{mean['tokens_per_second']:,.0f} |"
        )
    rates = "; ".join(
        f"{name}: " + ", ".join(f"{row['learning_rate']:g} → {row['perplexity']:.2f}" for row in rows)
        for name, rows in grid.items()
    )
    lines.append(f"\nPerplexity by learning rate, seed {arguments.seeds[0]}: {rates}.")
    save("main_job", {"teacher": teacher_row, "grid": grid, "runs": runs}, "\n".join(lines))


if __name__ == "__main__":
    main()

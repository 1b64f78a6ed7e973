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

    models = ("student", "distilled")
    runs = {
        name: {rate: [trained(name, seed, rate) for seed in arguments.seeds] for rate in arguments.learning_rates}
        for name in models
    }
    means = {
        name: {rate: statistics.mean(row["perplexity"] for row in rows) for rate, rows in runs[name].items()}
        for name in models
    }
    best = {name: min(means[name], key=lambda rate, name=name: means[name][rate]) for name in models}

    lines = [
        "| model | parameters | perplexity by seed | mean | agreement with the teacher | tokens/s |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in {"teacher": [teacher_row], **{name: runs[name][best[name]] for name in models}}.items():
        seeds = ", ".join(f"{row['perplexity']:.2f}" for row in rows)
        perplexity, agreement, speed = (
            statistics.mean(row[key] for row in rows) for key in ("perplexity", "agreement", "tokens_per_second")
        )
        lines.append(
            f"| {name} | {rows[0]['parameters']:,} | {seeds} | {perplexity:.2f} | {agreement:.1%} | {speed:,.0f} |"
        )
    lines.append(
        f"\nMean perplexity by learning rate, the best of each model above, {job.student_steps} steps each:\n"
    )
    lines.append(f"| model | {' | '.join(f'{rate:g}' for rate in arguments.learning_rates)} |")
    lines.append("|---" * (1 + len(arguments.learning_rates)) + "|")
    lines += [f"| {name} | {' | '.join(f'{mean:.2f}' for mean in means[name].values())} |" for name in models]
    save("main_job", {"teacher": teacher_row, "runs": runs}, "\n".join(lines))


if __name__ == "__main__":
    main()

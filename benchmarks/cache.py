"""What a cache of a teacher's answers costs and keeps: bytes, error, gradient, and time of a step.

    python benchmarks/cache.py

The teacher is the one of `examples/distill_language_model.py`, trained there on the Python language reference: a weak
one. `cache_language_model.py` looks at a pretrained one, and `cache_loading.py` at ten million rows.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from main_job import load_example
from measuring import in_turn, ratio, save
from torch.nn.functional import cosine_similarity
from transformers import TrainerCallback, default_data_collator

from hf_distill import DistillationTrainer, DistillationTrainingArguments, cache_teacher, head_of
from hf_distill.cache import CacheReader
from hf_distill.cache.shards import Shard, all_rows
from hf_distill.functional import forward_kl, on_top_k
from hf_distill.types import Feature


KINDS: dict[str, dict[str, Any]] = {
    "dense, float32": {"dtype": "float32"},
    "dense, float16": {"dtype": "float16"},
    "dense, bfloat16": {"dtype": "bfloat16"},
    "dense, uint8": {"dtype": "uint8"},
    "k = 32, float16": {"top_k": 32},
    "k = 64, float16": {"top_k": 64},
    "k = 64, bfloat16": {"top_k": 64, "dtype": "bfloat16"},
    "k = 64, uint8": {"top_k": 64, "dtype": "uint8"},
}
TEMPERATURES = (1.0, 2.0, 3.0)


def bytes_per_token(reader: CacheReader, num_tokens: int) -> tuple[float, float]:
    """Of a record before compression, and of the whole folder."""
    on_disk = sum(path.stat().st_size for path in reader.path.rglob("*") if path.is_file())
    return reader.records.num_bytes(1000) / 1000, on_disk / num_tokens


def gradient(student: Any, batch: dict[str, Any], signals: Any, mask: Any, temperature: float) -> Any:
    """Of the soft targets by the student's weights."""
    student.zero_grad()
    logits = student(input_ids=batch["input_ids"]).logits[mask]
    on_top_k(forward_kl)(logits, signals.logits[mask], temperature=temperature).sum().backward()
    grads = [parameter.grad.flatten() for parameter in student.parameters() if parameter.grad is not None]
    return torch.cat(grads).double()


def quality(work: Any, teacher: Any, student: Any, folder: Path) -> dict[str, Any]:
    """Each kind of cache against the teacher itself."""
    rows = work.train.select(range(256))
    batch = default_data_collator([rows[number] for number in range(16)])
    head = head_of(teacher)
    mask = head.mask(batch)
    results = {}
    with torch.no_grad():
        exact = teacher.eval()(input_ids=batch["input_ids"]).logits
    online = type("Said", (), {"logits": exact})
    for name, options in KINDS.items():
        cached = cache_teacher(teacher, rows, folder / name, data_collator=default_data_collator, **options)
        cached.meet(student, head)
        signals = cached.signals(batch)
        raw, on_disk = bytes_per_token(cached.cache, len(rows) * (work.job.block_size - 1))
        found = signals.logits
        if "top_k" in options:
            error = (found.values[mask].float() - exact.log_softmax(-1)[mask].gather(-1, found.indices[mask])).abs()
        else:
            error = (found[mask].float() - exact[mask]).abs()
        cosines = {
            temperature: cosine_similarity(
                gradient(student, batch, signals, mask, temperature),
                gradient(student, batch, online, mask, temperature),
                dim=0,
            ).item()
            for temperature in TEMPERATURES
        }
        results[name] = {
            "bytes_per_token": raw,
            "bytes_per_token_on_disk": on_disk,
            "largest_error": error.max().item(),
            "mean_error": error.mean().item(),
            "gradient_cosine": cosines,
        }
    return results


def layers(work: Any, teacher: Any, folder: Path) -> dict[str, dict[str, float]]:
    """The hidden states of the last layer in each precision, against the teacher's own."""
    rows = work.train.select(range(64))
    batch = default_data_collator([rows[number] for number in range(16)])
    head = head_of(teacher)
    with torch.no_grad():
        exact = teacher.eval()(input_ids=batch["input_ids"], output_hidden_states=True).hidden_states[-1]
    results = {}
    for dtype in ("float32", "float16", "bfloat16", "uint8"):
        cached = cache_teacher(
            teacher,
            rows,
            folder / f"layer, {dtype}",
            data_collator=default_data_collator,
            top_k=1,
            dtype=dtype,
            layers=[-1],
        )
        cached.meet(None, head)
        cached.read_features({Feature("hidden_states", cached.anatomy.stack(None).num_layers)})
        (found,) = cached.signals(batch).features.values()
        shards = [Shard(cached.cache.path / name) for name in cached.cache.manifest.shards]
        on_disk = sum(len(row.features) for row in all_rows(shards))
        error = (found.float() - exact).abs()
        results[dtype] = {
            "bytes_per_token": cached.cache.feature_records.num_bytes({"": 1000}) / 1000,
            "bytes_per_token_on_disk": on_disk / (len(rows) * work.job.block_size),
            "mean_error": (error.mean() / exact.std()).item(),
            "largest_error": (error.max() / exact.std()).item(),
            "cosine": cosine_similarity(found.float(), exact, dim=-1).min().item(),
        }
    return results


class Stopwatch(TrainerCallback):
    """Times the steps after the first few."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            self.start = time.perf_counter()
        self.seconds = (time.perf_counter() - self.start) / max(1, state.global_step - 3)

    start = 0.0


def step_seconds(work: Any, student: Any, teacher: Any, alpha: float, steps: int) -> float:
    stopwatch = Stopwatch()
    arguments: dict[str, Any] = {"max_steps": steps + 3, "per_device_train_batch_size": 16, "disable_tqdm": True}
    arguments |= {"report_to": [], "save_strategy": "no", "logging_steps": 10**6, "use_cpu": True, "preflight": False}
    DistillationTrainer(
        model=student,
        teacher=teacher,
        args=DistillationTrainingArguments(tempfile.gettempdir(), alpha=alpha, **arguments),
        train_dataset=work.train.select(range(256)),
        data_collator=default_data_collator,
        callbacks=[stopwatch],
    ).train()
    return stopwatch.seconds


def reading_seconds(cached: Any, batch: dict[str, Any]) -> float:
    start = time.perf_counter()
    for _ in range(5):
        cached.answers(batch)
    return (time.perf_counter() - start) / 5


def step_ratios(
    work: Any, teacher: Any, student: Any, folder: Path, arguments: Any
) -> tuple[dict[str, Any], list[str]]:
    """Steps with the teacher, with its cache and without either, in turn."""
    cached = cache_teacher(
        teacher,
        work.train.select(range(256)),
        folder / "k = 64, float16",
        data_collator=default_data_collator,
        top_k=64,
    )
    cached.meet(student, head_of(student))
    batch = default_data_collator([work.train[number] for number in range(16)])
    figures = in_turn(
        {
            "online": lambda: step_seconds(work, student, teacher, 0.5, arguments.steps),
            "cached": lambda: step_seconds(work, student, cached, 0.5, arguments.steps),
            "alone": lambda: step_seconds(work, student, None, 1.0, arguments.steps),
            "reading": lambda: reading_seconds(cached, batch),
        },
        arguments.rounds,
    )
    steps = {
        "cached / online": ratio(figures, "cached", "online"),
        "cached / labels alone": ratio(figures, "cached", "alone"),
        "reading / cached": ratio(figures, "reading", "cached"),
    }
    lines = [
        "",
        "| step, k = 64 | ratio |",
        "|---|---|",
        *(f"| {name} | {value:.3f} |" for name, value in steps.items()),
    ]
    lines.append(f"\nA cached step takes {1e3 * statistics.median(figures['cached']):.0f} ms.")
    return {"seconds": figures, "ratios": steps, "rounds": arguments.rounds}, lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--teacher_steps", type=int, default=200)
    parser.add_argument("--student_steps", type=int, default=80, help="on the text alone, before it is compared")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    example = load_example()
    work = example.MainJob.prepare(
        example.JobArguments(output_dir=str(folder / "job"), teacher_steps=arguments.teacher_steps)
    )
    teacher, student = work.teacher(), work.student(0)
    if arguments.student_steps:
        work.fit("student", student, arguments.student_steps, work.job.student_learning_rate)
    results: dict[str, Any] = {"vocab_size": len(work.tokenizer), "kinds": quality(work, teacher, student, folder)}
    lines = [
        "| kept | bytes per token | on disk | mean error | largest | gradient cosine at T = 1 | 2 | 3 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in results["kinds"].items():
        cosines = " | ".join(f"{value:.5f}" for value in row["gradient_cosine"].values())
        lines.append(
            f"| {name} | {row['bytes_per_token']:.0f} | {row['bytes_per_token_on_disk']:.1f} "
            f"| {row['mean_error']:.5f} | {row['largest_error']:.4f} | {cosines} |"
        )
    results["layers"] = layers(work, teacher, folder)
    lines += [
        "",
        "| hidden states of one layer | bytes per token | on disk | mean error | largest | smallest cosine |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in results["layers"].items():
        lines.append(
            f"| {name} | {row['bytes_per_token']:.0f} | {row['bytes_per_token_on_disk']:.1f} "
            f"| {row['mean_error']:.5f} | {row['largest_error']:.4f} | {row['cosine']:.6f} |"
        )
    lines.append("\nTheir errors are in standard deviations of the teacher's hidden states.")
    found, rows = step_ratios(work, teacher, student, folder, arguments)
    results |= found
    lines += rows
    save("cache", results, "\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())

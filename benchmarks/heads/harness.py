"""One protocol for every head: a teacher, and a student with and without it, each at its own best learning rate."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset
from transformers import PreTrainedModel, set_seed

from hf_distill import DistillationTrainer, DistillationTrainingArguments, Objective


TEMPERATURE, ALPHA = 2.0, 0.5
"""The library's defaults, for every job with the default objective: nothing is tuned but the learning rate."""
MAX_WIDENINGS = 2
"""How often a grid may grow beyond an edge that holds its best rate."""


class MissingIngredient(Exception):
    """What a job needs is not on this machine."""


@dataclass
class Job:
    """One head on one data set.

    All numbers of steps, rows and rates are those of both students; only the teacher has its own.
    """

    head: str
    data: str
    """What is learned from and measured on, in words."""
    score: str
    """Which of the scores chooses the learning rate and is in the table."""
    teacher: Callable[[], PreTrainedModel]
    student: Callable[[PreTrainedModel], PreTrainedModel]
    """From the teacher, of which it may be made."""
    teacher_rows: Any
    rows: Any
    measure: Callable[[DistillationTrainer], dict[str, float]]
    models: str
    """Teacher and student, in words."""
    unlabelled_rows: Any = None
    """Rows of which a third arm sees the teacher's answers, and no labels."""
    objective: Callable[[], Objective] | None = None
    """Of the distilled student, where the library's default does not do."""
    lower_is_better: bool = False
    teacher_rate: float = 1e-3
    teacher_steps: int = 300
    steps: int = 150
    rates: tuple[float, ...] = (5e-4, 1e-3, 2e-3)
    batch_size: int = 32
    bf16: bool = True
    """Whether matrix products are in bfloat16, for teacher and students alike; weights are float32."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """More training arguments."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """More arguments of the trainer: collator, tokenizer, head."""

    def shortest(self) -> "Job":
        """Two steps at one rate, to see that all runs."""
        return replace(self, teacher_steps=2, steps=2, rates=self.rates[:1], batch_size=4)


def read(data: Path, data_set: str, split: str, num_rows: int | None = None) -> Dataset:
    """The first rows of one split, in an order shuffled by a fixed seed where rows are left out."""
    file = data / data_set / f"{split}.parquet"
    if not file.is_file():
        raise MissingIngredient(f"the folder of real data has no {data_set}/{split}.parquet")
    rows = load_dataset("parquet", data_files=str(file), split="train")
    return rows if num_rows is None else rows.shuffle(seed=0).select(range(min(num_rows, len(rows))))


@dataclass
class Contest:
    """The runs of one job."""

    job: Job
    output_dir: Path
    seeds: tuple[int, ...]

    def trainer(self, model: PreTrainedModel, **settings: Any) -> DistillationTrainer:
        job = self.job
        of_trainer = {name: settings.pop(name) for name in ("teacher", "train_dataset") if name in settings}
        if of_trainer.get("teacher") is not None and job.objective is not None:
            of_trainer["objective"] = job.objective()
        return DistillationTrainer(
            model=model,
            args=DistillationTrainingArguments(
                output_dir=str(self.output_dir),
                temperature=TEMPERATURE,
                per_device_train_batch_size=job.batch_size,
                per_device_eval_batch_size=2 * job.batch_size,
                bf16=job.bf16,
                use_cpu=True,
                preflight=False,
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
                dataloader_pin_memory=False,
                **{**job.arguments, **settings},
            ),
            **of_trainer,
            **job.trainer,
        )

    def fit(
        self,
        model: PreTrainedModel,
        rows: Any,
        steps: int,
        rate: float,
        seed: int,
        teacher: PreTrainedModel | None = None,
        alpha: float = 1.0,
    ) -> dict[str, float]:
        """Train a model, and measure it."""
        self.trainer(
            model,
            teacher=teacher,
            train_dataset=rows,
            alpha=alpha,
            max_steps=steps,
            learning_rate=rate,
            warmup_steps=max(1, steps // 10),
            weight_decay=0.01,
            seed=seed,
        ).train()
        return self.measured(model)

    def measured(self, model: PreTrainedModel) -> dict[str, float]:
        """The scores of a model, by a trainer without teacher, which answers the rows in their order."""
        return self.job.measure(self.trainer(model, alpha=1.0, train_sampling_strategy="sequential"))

    @cached_property
    def teacher(self) -> tuple[PreTrainedModel, dict[str, Any]]:
        """The teacher and its scores, from the output folder if it was trained there by the same settings."""
        job, folder = self.job, self.output_dir / "teacher"
        settings = [job.data, job.models, job.teacher_steps, job.teacher_rate, job.batch_size, len(job.teacher_rows)]
        known = folder / "scores.json"
        set_seed(0)
        model = job.teacher()
        if known.is_file() and (kept := json.loads(known.read_text()))["settings"] == settings:
            return type(model).from_pretrained(folder), kept["scores"]
        shutil.rmtree(folder, ignore_errors=True)
        measured = self.fit(model, job.teacher_rows, job.teacher_steps, job.teacher_rate, seed=0)
        scores = {"parameters": model.num_parameters(), **measured}
        model.save_pretrained(folder)
        known.write_text(json.dumps({"settings": settings, "scores": scores}))
        return model, scores

    def trained_student(self, rate: float, seed: int, rows: Any, alpha: float) -> dict[str, Any]:
        job, start = self.job, time.process_time()
        set_seed(seed)
        teacher, _ = self.teacher
        student = job.student(teacher)
        measured = self.fit(student, rows, job.steps, rate, seed, None if alpha == 1.0 else teacher, alpha)
        run = {"seed": seed, "rate": rate, "parameters": student.num_parameters(), **measured}
        print(f"  {run} {time.process_time() - start:.0f} s", flush=True)
        return run

    def arm(self, rows: Any, alpha: float) -> dict[str, Any]:
        """One way to train the student: all rates with the first seed, then the best one with the other seeds."""
        first, *others = self.seeds
        tried: dict[float, dict[str, Any]] = {}
        for rate in self._rates(tried):
            tried[rate] = self.trained_student(rate, first, rows, alpha)
        best = self._best(tried)
        runs = [tried[best], *(self.trained_student(best, seed, rows, alpha) for seed in others)]
        return {
            "rate": best,
            "tried": {f"{rate:g}": tried[rate][self.job.score] for rate in sorted(tried)},
            "runs": runs,
        }

    def _best(self, tried: dict[float, dict[str, Any]]) -> float:
        choose = min if self.job.lower_is_better else max
        return choose(tried, key=lambda rate: tried[rate][self.job.score])

    def _rates(self, tried: dict[float, dict[str, Any]]) -> Iterator[float]:
        """The grid, and then further rates as long as the best one is at an edge."""
        yield from self.job.rates
        grid = sorted(self.job.rates)
        for _ in range(MAX_WIDENINGS if len(grid) > 1 else 0):
            best = self._best(tried)
            if best == grid[0]:
                grid.insert(0, float(f"{grid[0] ** 2 / grid[1]:.3g}"))
                yield grid[0]
            elif best == grid[-1]:
                grid.append(float(f"{grid[-1] ** 2 / grid[-2]:.3g}"))
                yield grid[-1]

    def run(self) -> dict[str, Any]:
        job, wall, cpu = self.job, time.perf_counter(), time.process_time()
        _, teacher = self.teacher
        print(f"  teacher: {teacher} {time.process_time() - cpu:.0f} s", flush=True)
        arms = {"labels alone": self.arm(job.rows, 1.0), "distilled": self.arm(job.rows, ALPHA)}
        if job.unlabelled_rows is not None:
            arms["distilled without labels"] = self.arm(job.unlabelled_rows, 0.0)
        return {
            "head": job.head,
            "data": job.data,
            "models": job.models,
            "score": job.score,
            "lower_is_better": job.lower_is_better,
            "objective": "hinton" if job.objective is None else job.objective.__name__,
            "temperature": TEMPERATURE if job.objective is None else None,
            "alpha": ALPHA if job.objective is None else None,
            "arguments": job.arguments,
            "teacher_steps": job.teacher_steps,
            "steps": job.steps,
            "batch_size": job.batch_size,
            "bf16": job.bf16,
            "teacher": teacher,
            "arms": arms,
            "wall_seconds": round(time.perf_counter() - wall),
            "processor_seconds": round(time.process_time() - cpu),
        }

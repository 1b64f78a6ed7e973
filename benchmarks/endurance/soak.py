"""50,000 short steps of a tiny pair: memory and the time of a step stay flat.

    python benchmarks/endurance/soak.py

Rows of one short length, a learned projection, logs and checkpoints. Before and after every tenth step a yardstick is
timed: a forward and a backward of the same models, made once, without a Trainer. What else the machine does makes both
slower, so a step is given in yardsticks. The first tenth of the steps warms up; then the median step and the resident
memory of each tenth are compared with those of the second one.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from tiny_pair import model, quiet_trainer
from torch.nn.functional import cross_entropy
from transformers import TrainerCallback


sys.path.append(str(Path(__file__).parents[1]))

from measuring import save


PARTS = 10
STEPS_PER_SAMPLE = 10


class Yardstick:
    """A fixed piece of work like that of a step."""

    def __init__(self) -> None:
        self._student, self._teacher = model(1, 16).eval(), model(2, 32).eval()
        self._tokens = torch.randint(0, 50, (2, 9))

    def seconds(self) -> float:
        """The processor time that it takes now."""
        start = time.process_time()
        with torch.no_grad():
            targets = self._teacher(self._tokens).logits.softmax(-1)
        cross_entropy(self._student(self._tokens).logits, targets).backward()
        self._student.zero_grad()
        return time.process_time() - start


class Watch(TrainerCallback):
    """Processor time of sampled steps, alone and in yardsticks, and resident memory at the end of every part."""

    def __init__(self, steps: int) -> None:
        self.steps_per_part = steps // PARTS
        self.milliseconds: list[float] = []
        self.yardsticks: list[float] = []
        self.mebibytes: list[float] = []
        self._yardstick = Yardstick()
        self._samples: list[tuple[float, float]] = []
        self._before = self._start = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % STEPS_PER_SAMPLE == 0:
            self._before = self._yardstick.seconds()
            self._start = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % STEPS_PER_SAMPLE == 1:
            seconds = time.process_time() - self._start
            self._samples.append((seconds, (self._before + self._yardstick.seconds()) / 2))
        if state.global_step % self.steps_per_part == 0:
            self.milliseconds.append(1e3 * statistics.median(step for step, _ in self._samples))
            self.yardsticks.append(statistics.median(step / yardstick for step, yardstick in self._samples))
            self.mebibytes.append(psutil.Process().memory_info().rss / 2**20)
            self._samples.clear()


def soak(output_dir: Path, steps: int) -> dict[str, Any]:
    watch = Watch(steps)
    quiet_trainer(
        output_dir,
        num_rows=256,
        callbacks=[watch],
        max_steps=steps,
        logging_steps=steps // 50,
        save_steps=steps // 20,
    ).train()
    return {
        "steps": steps,
        "milliseconds_per_step": watch.milliseconds,
        "yardsticks_per_step": watch.yardsticks,
        "mebibytes": watch.mebibytes,
    }


def drift(figures: list[float]) -> float:
    """The largest difference of the later tenths from the second one, as a fraction of it."""
    return max(abs(figure / figures[1] - 1) for figure in figures[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = soak(Path(folder), arguments.steps)
    lines = ["| steps | median ms of processor time | in yardsticks | resident MiB |", "|---|---|---|---|"]
    columns = results["milliseconds_per_step"], results["yardsticks_per_step"], results["mebibytes"]
    for part, (step, yardsticks, memory) in enumerate(zip(*columns, strict=True), 1):
        lines.append(f"| to {part * arguments.steps // PARTS} | {step:.2f} | {yardsticks:.3f} | {memory:.0f} |")
    drifts = [drift(column) for column in columns]
    lines.append(f"| largest difference from the second tenth | {' | '.join(f'{each:.1%}' for each in drifts)} |")
    _, slower, larger = drifts
    save("endurance/soak", {**results, "drift_of_time": slower, "drift_of_memory": larger}, "\n".join(lines))


if __name__ == "__main__":
    main()

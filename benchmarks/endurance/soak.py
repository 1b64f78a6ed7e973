"""50,000 short steps of a tiny pair: memory and the time of a step stay flat.

    python benchmarks/endurance/soak.py

Rows of one short length, a learned projection, logs and checkpoints. The first tenth of the steps warms up; then the
median step and the resident memory of each tenth are compared with those of the second one.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from tiny_pair import quiet_trainer
from transformers import TrainerCallback


sys.path.append(str(Path(__file__).parents[1]))

from measuring import save


PARTS = 10


class Watch(TrainerCallback):
    """Processor time of every step and resident memory at the end of every part."""

    def __init__(self, steps: int) -> None:
        self.steps_per_part = steps // PARTS
        self.milliseconds: list[float] = []
        self.mebibytes: list[float] = []
        self._seconds: list[float] = []
        self._start = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self._start = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._seconds.append(time.process_time() - self._start)
        if state.global_step % self.steps_per_part == 0:
            self.milliseconds.append(1e3 * statistics.median(self._seconds))
            self.mebibytes.append(psutil.Process().memory_info().rss / 2**20)
            self._seconds.clear()


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
    return {"steps": steps, "milliseconds_per_step": watch.milliseconds, "mebibytes": watch.mebibytes}


def drift(figures: list[float]) -> float:
    """The largest difference of the later tenths from the second one, as a fraction of it."""
    return max(abs(figure / figures[1] - 1) for figure in figures[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = soak(Path(folder), arguments.steps)
    lines = ["| steps | median ms of processor time | resident MiB |", "|---|---|---|"]
    for part, (step, memory) in enumerate(zip(results["milliseconds_per_step"], results["mebibytes"], strict=True), 1):
        lines.append(f"| to {part * arguments.steps // PARTS} | {step:.2f} | {memory:.0f} |")
    slower, larger = drift(results["milliseconds_per_step"]), drift(results["mebibytes"])
    lines.append(f"| largest difference from the second tenth | {slower:.1%} | {larger:.1%} |")
    save("endurance/soak", {**results, "drift_of_time": slower, "drift_of_memory": larger}, "\n".join(lines))


if __name__ == "__main__":
    main()

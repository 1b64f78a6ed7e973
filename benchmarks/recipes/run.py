"""Which recipe keeps most of a fine-tuned encoder, on SST-2: `python benchmarks/recipes/run.py --real-data DIR`.

One teacher of 6 layers; students of 3 and of 2 of its layers, trained by each way for the same steps with three seeds,
and by the best ways for one epoch and for three. Each run is merged into `results/recipes.json` and `recipes.md` when
it is done, and is not repeated, so the whole can be interrupted.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path


os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
sys.path.append(str(Path(__file__).parents[1]))  # where `measuring` is
sys.path.append(str(Path(__file__).parents[1] / "heads"))  # where `pretrained` and `harness` are

import datasets
import pretrained
import torch
from contest import Contest, TeacherSetting
from harness import MissingIngredient
from measuring import RESULTS
from plan import LAYERS, PLAN, Setting
from speed import speeds
from summary import Record
from transformers.utils.logging import disable_progress_bar


def measure_speed(contest: Contest, record: Record, rounds: int) -> None:
    # The teacher is copied too, since a model that a Trainer has evaluated keeps Accelerate's autocast on.
    whole = tuple(range(contest.teacher.config.num_hidden_layers))
    models = {f"{len(layers)} layers": contest.student(layers) for layers in LAYERS.values()}
    record.add_speed(speeds({"teacher": contest.student(whole), **models}, contest.rows, contest.collator, rounds))


def run_all(contest: Contest, record: Record, plan: Mapping[str, list[Setting]], seeds: list[int]) -> None:
    """Every setting of each part that is not yet in the record, the first seed of all first."""
    for part, settings in plan.items():
        for seed in seeds[:1] if part == "choices" else seeds:
            for setting in settings:
                if not record.has(setting, seed):
                    record.add(setting, seed, contest.run(setting, seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"speed, {', '.join(PLAN)}; all by default")
    parser.add_argument("--real-data", default=os.environ.get("HF_DISTILL_DATA"), metavar="DIR")
    parser.add_argument("--pretrained", type=Path, help="a folder with another encoder of 6 layers and its tokenizer")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/recipes"), help="where the teacher is kept")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table goes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="two steps of every run, all kept in the output folder")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - {"speed", *PLAN}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are speed, {', '.join(PLAN)}")
    if arguments.real_data is None:
        print("Skipped: this needs real data sets; pass --real-data DIR or set HF_DISTILL_DATA.")
        return

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    disable_progress_bar()
    quick, wanted = arguments.quick, arguments.parts or ["speed", *PLAN]
    output_dir, results = arguments.output_dir, arguments.results
    if quick:
        output_dir = results = output_dir / "quick"
    try:
        contest = Contest(
            arguments.pretrained or pretrained.folder(),
            Path(arguments.real_data),
            output_dir,
            TeacherSetting(steps=2) if quick else TeacherSetting(),
            num_rows=64 if quick else None,
        )
    except MissingIngredient as reason:
        print(f"Skipped: {reason}")
        return
    plan = {
        part: [replace(each, steps=2) if quick else each for each in settings()] for part, settings in PLAN.items()
    }
    record = Record(results, contest.teacher_row(), plan)
    if "speed" in wanted:
        measure_speed(contest, record, rounds=1 if quick else 5)
    run_all(contest, record, {part: plan[part] for part in PLAN if part in wanted}, arguments.seeds)


if __name__ == "__main__":
    main()

"""Does distilling help, head by head, on real data: `python benchmarks/heads/run.py [job …] --real-data DIR`.

Each job trains a teacher, a student on the labels alone and the same student distilled, on the same rows, in the same
batches and steps: the students with three seeds, each at its own best learning rate. Results are merged into
`results/heads.json` and `heads.md`, so jobs can be run one by one.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path


os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
sys.path.append(str(Path(__file__).parents[1]))  # where `measuring` is

import ctc
import datasets
import detection
import images
import language_models
import question_answering
import sentences
import sound
import tagging
import torch
import writing
from harness import Contest, Job, MissingIngredient
from measuring import RESULTS, circumstances
from report import merge
from transformers.utils.logging import disable_progress_bar


JOBS: dict[str, Callable[[Path], Job]] = {
    "sst2": sentences.sst2,
    "cola": sentences.cola,
    "qnli": sentences.qnli,
    "stsb": sentences.stsb,
    "ewt": tagging.ewt,
    "squad": question_answering.squad,
    "masked": language_models.masked,
    "causal": language_models.causal,
    "translation": writing.translation,
    "headlines": writing.headlines,
    "cifar10": images.cifar10,
    "cells": detection.blood_cells,
    "digits": sound.digits,
    "ctc": ctc.spoken_numbers,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", metavar="job", help=f"one of {', '.join(JOBS)}; all by default")
    parser.add_argument("--real-data", default=os.environ.get("HF_DISTILL_DATA"), metavar="DIR")
    parser.add_argument("--output_dir", default="outputs/heads", help="where teachers are kept")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table goes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--smoke", action="store_true", help="two steps of every run, to see that all runs")
    arguments = parser.parse_args()
    if unknown := set(arguments.jobs) - JOBS.keys():
        parser.error(f"no such job: {', '.join(sorted(unknown))}; there are {', '.join(JOBS)}")
    if arguments.real_data is None:
        print("Skipped: this needs real data sets; pass --real-data DIR or set HF_DISTILL_DATA.")
        return

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    disable_progress_bar()
    for name in arguments.jobs or JOBS:
        print(name, flush=True)
        try:
            job = JOBS[name](Path(arguments.real_data))
        except MissingIngredient as reason:
            print(f"  skipped: {reason}")
            continue
        job = job.shortest() if arguments.smoke else job
        results = Contest(job, Path(arguments.output_dir) / name, tuple(arguments.seeds)).run()
        merge(name, {**results, "circumstances": circumstances()}, arguments.results, order=list(JOBS))


if __name__ == "__main__":
    main()

"""Losses and trainers of other libraries beside ours, in turn in one process: `python benchmarks/peers/run.py`.

None of them is a dependency. They are put into a folder of their own, without what they depend on:

    pip install --target FOLDER --no-deps liger-kernel==0.8.5 triton trl==1.16.0 textbrewer==0.2.1.post1 \\
        torchdistill==1.1.5 nvidia-modelopt==0.47.0 omegaconf antlr4-python3-runtime==4.9.3 pulp
    git clone https://github.com/arcee-ai/DistillKit CHECKOUT
    PYTHONPATH=FOLDER python benchmarks/peers/run.py --distillkit CHECKOUT

One that is missing, or does not import, is in the table with the reason. Each part is merged into `results/peers.json`
and `peers.md` when it is done.
"""

import argparse
import json
import os
import sys
from datetime import date
from pathlib import Path


os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
sys.path.append(str(Path(__file__).parents[1]))  # where `measuring` is

import large_vocabulary
import quantities
import small_classes
import steps
import torch
from libraries import Libraries
from measuring import RESULTS, save


PARTS = {
    "quantities": (quantities, 1),
    "small_classes": (small_classes, 15),
    "large_vocabulary": (large_vocabulary, 3),
    "steps": (steps, 5),
}
"""Each with its rounds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument("--distillkit", type=Path, metavar="CHECKOUT")
    parser.add_argument("--rounds", type=int, help="in place of each part's own")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    torch.set_num_threads(1)

    libraries = Libraries(arguments.distillkit)
    path = RESULTS / "peers.json"
    record = json.loads(path.read_text())["parts"] if path.exists() else {}
    for part in arguments.parts or PARTS:
        module, rounds = PARTS[part]
        rounds = arguments.rounds or rounds
        results, lines = module.measure(libraries, rounds)
        record[part] = {"date": date.today().isoformat(), "rounds": rounds, **results, "table": lines}
    tables = [libraries.table(), *("\n".join(record[part]["table"]) for part in PARTS if part in record)]
    save("peers", {"libraries": libraries.versions, "parts": record}, "\n\n".join(tables))


if __name__ == "__main__":
    main()

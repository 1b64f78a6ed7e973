"""The benchmark of the recipes runs to its end on rows in the format of its data set, and resumes where it was."""

import importlib
import json
from pathlib import Path

import pytest
from datasets import Dataset
from transformers import AutoModel

from tests.house.benchmark_runs import SECONDS, run_benchmark
from tests.house.local_hub import put_model, put_tokenizer


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "recipes" / "run.py"


@pytest.fixture
def ingredients(tmp_path):
    """The arguments that name rows like those of SST-2, and a tiny encoder with their words."""
    rows = {"sentence": [f"a {'fine' if n % 2 else 'dull'} film {n % 7}" for n in range(64)]}
    rows |= {"label": [n % 2 for n in range(64)], "idx": list(range(64))}
    folder = tmp_path / "data" / "glue_sst2"
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        Dataset.from_dict(rows).to_parquet(str(folder / f"{split}.parquet"))
    encoder = str(tmp_path / "encoder")
    tokenizer = put_tokenizer(encoder, rows["sentence"])
    sizes = {"hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 6}
    put_model(encoder, AutoModel, vocab_size=len(tokenizer), **sizes)
    return ["--quick", "--real-data", folder.parent, "--pretrained", encoder, "--seeds", 0]


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS + 10)
def test_every_way_runs_at_both_depths_and_is_not_repeated(tmp_path, ingredients):
    assert "; seed 0: " in run_benchmark(SCRIPT, tmp_path, *ingredients)

    results = tmp_path / "outputs" / "recipes" / "quick"
    record = json.loads((results / "recipes.json").read_text())
    runs = {(run["setting"]["way"], len(run["setting"]["layers"])) for run in record["runs"].values()}
    assert len(runs) == 30
    assert all(0 <= run["seeds"]["0"]["accuracy"] <= 1 for run in record["runs"].values())
    sizes = {len(run["setting"]["layers"]): run["seeds"]["0"]["parameters"] for run in record["runs"].values()}
    assert sizes[2] < sizes[3] < record["teacher"]["parameters"]
    assert set(record["speed"]) == {"teacher", "3 layers", "2 layers"}
    page = (results / "recipes.md").read_text()
    assert "| MiniLMv2 | " in page
    assert "| 2 layers | " in page

    assert "seed" not in run_benchmark(SCRIPT, tmp_path, "choices", "ways", "others", "longer", *ingredients)
    again = json.loads((results / "recipes.json").read_text())
    assert again == record


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [((), "pass --real-data DIR or set HF_DISTILL_DATA"), (("--quick", "--real-data", "."), "no glue_sst2/train")],
)
def test_what_is_missing_is_skipped_with_a_reason(arguments, reason, tmp_path, ingredients):
    assert reason in run_benchmark(
        SCRIPT, tmp_path, *arguments, *(("--pretrained", ingredients[4]) if arguments else ())
    )


def test_gains_are_of_the_same_seeds_and_what_is_kept_is_of_the_teacher(monkeypatch):
    for folder in (SCRIPT.parents[1], SCRIPT.parent):
        monkeypatch.syspath_prepend(str(folder))
    summary, plan = importlib.import_module("summary"), importlib.import_module("plan")
    soft, labels = plan.Setting("soft labels", (0, 1), 5), plan.Setting("labels alone", (0, 1), 5)
    accuracies = {soft: {"0": 0.72, "1": 0.80, "2": 0.10}, labels: {"1": 0.70, "0": 0.71}}
    runs = {
        setting.key: {"seeds": {seed: {"accuracy": accuracy} for seed, accuracy in of_seed.items()}}
        for setting, of_seed in accuracies.items()
    }
    content = {"teacher": {"accuracy": 0.9}, "runs": runs}

    assert summary.gain(content, soft) == "+5.5 (+1.0, +10.0)"
    assert summary.gain(content, labels) == "–"
    assert summary.kept(content, runs[soft.key]["seeds"].values()) == pytest.approx((0.72 + 0.80 + 0.10) / 3 / 0.9)

"""The benchmarks of the heads run to their end on rows in the format of their data sets, and score as their papers."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from tests.house.benchmark_runs import SECONDS, run_benchmark


FOLDER = Path(__file__).parents[2] / "benchmarks" / "heads"


def loaded(name: str):
    """A module of the benchmarks, which are no package."""
    specification = importlib.util.spec_from_file_location(f"head_benchmarks_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


scores, report = loaded("scores"), loaded("report")


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS + 10)
def test_a_job_runs_keeps_its_teacher_and_merges_its_row(tmp_path):
    text = [
        f"Citizen {number}:\nBefore we proceed any further, hear {number * 37 % 101} of me speak."
        for number in range(60)
    ]
    for split in ("train", "validation"):
        file = tmp_path / "data" / "tiny_shakespeare" / f"{split}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        Dataset.from_dict({"text": text}).to_parquet(str(file))
    results = tmp_path / "results"
    results.mkdir()
    arguments = [
        "causal",
        "--smoke",
        "--real-data",
        tmp_path / "data",
        "--results",
        results,
        "--output_dir",
        "outputs",
    ]

    run_benchmark(FOLDER / "run.py", tmp_path, *arguments, "--seeds", 0, 1)

    job = json.loads((results / "heads.json").read_text())["causal"]
    assert [run["seed"] for run in job["arms"]["distilled"]["runs"]] == [0, 1]
    assert job["arms"]["labels alone"]["runs"] != job["arms"]["distilled"]["runs"]
    assert (
        job["circumstances"]["torch"]
        and job["teacher"]["parameters"] > job["arms"]["distilled"]["runs"][0]["parameters"]
    )
    assert "| CausalLMHead | Tiny Shakespeare | perplexity ↓ |" in (results / "heads.md").read_text()

    kept = tmp_path / "outputs" / "causal" / "teacher" / "model.safetensors"
    before = kept.stat().st_mtime_ns
    run_benchmark(FOLDER / "run.py", tmp_path, *arguments, "--seeds", 0)
    assert kept.stat().st_mtime_ns == before
    again = json.loads((results / "heads.json").read_text())["causal"]
    assert again["teacher"] == job["teacher"]
    assert again["arms"]["distilled"]["runs"] == job["arms"]["distilled"]["runs"][:1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "pass --real-data DIR or set HF_DISTILL_DATA"),
        (("causal", "--real-data", "."), "no tiny_shakespeare/train.parquet"),
    ],
)
def test_what_is_missing_is_skipped_with_a_reason(arguments, reason, tmp_path):
    assert reason in run_benchmark(FOLDER / "run.py", tmp_path, *arguments, "--seeds", 0, 1)


def test_answer_scores_leave_out_case_punctuation_and_articles():
    assert scores.answer_scores("The Golden Statue!", ["golden statue"]) == (1.0, 1.0)
    exact, f1 = scores.answer_scores("a statue of copper", ["gold", "the copper statue"])
    assert exact == 0.0
    assert f1 == pytest.approx(2 * (2 / 3) * 1.0 / (2 / 3 + 1.0))


def test_bleu_is_the_geometric_mean_of_precisions_times_the_brevity_penalty():
    assert scores.bleu(["a b c d e"], ["a b c d e"]) == pytest.approx(100.0)
    # Precisions 4/5, 3/4, 2/3, 1/2; as long as the reference.
    assert scores.bleu(["a b c d x"], ["a b c d e"]) == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    # Four words of five: all precisions 1, penalty exp(1 - 5/4).
    assert scores.bleu(["a b c d"], ["a b c d e"]) == pytest.approx(100 * 2.718281828459045 ** (1 - 5 / 4))
    assert scores.bleu(["a a a a a"], ["a b c d e"]) == 0.0


def test_rouge_l_is_the_f1_of_the_longest_common_subsequence():
    # police ... the gunman: 3 of 4 and 3 of 4 words (Lin 2004, section 3.1).
    assert scores.rouge_l(["police kill the gunman"], ["police killed the gunman"]) == pytest.approx(75.0)
    assert scores.rouge_l(["the gunman kill police"], ["police killed the gunman"]) == pytest.approx(50.0)


def test_edits_are_the_levenshtein_distance():
    assert scores.edits("kitten", "sitting") == 3
    assert scores.edits("", "abc") == scores.edits("abc", "") == 3


def test_the_surest_box_chooses_first_and_no_object_is_found_twice():
    overlaps = np.array([[0.6, 0.9], [0.4, 0.8], [0.5, 0.0], [0.0, 0.7]])
    assert scores.are_found(overlaps, 0.5) == [True, False, True, False]
    assert scores.are_found(np.zeros((2, 0)), 0.5) == [False, False]
    assert overlaps[0, 1] == 0.9


def test_average_precision_is_the_area_under_the_best_precision_at_each_recall():
    # In order of score: right, wrong, right, right. Precision 1 at recall 1/4, 3/4 at recalls 2/4 and 3/4, then none.
    found = [True, True, False, True]
    assert scores.average_precision([0.2, 0.9, 0.7, 0.5], found, 4) == pytest.approx((1 + 3 / 4 + 3 / 4) / 4)
    assert scores.average_precision([0.2, 0.9], [False, False], 3) == 0.0


def test_detectors_are_measured_by_their_boxes_and_mirrored_with_them(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    detection = loaded("detection")
    pixels = np.zeros((240, 320, 3), dtype=np.uint8)
    pixels[:120, :160] = 255
    objects = {"bbox": [[0.0, 0.0, 160.0, 120.0], [160.0, 180.0, 32.0, 60.0]], "category": [0, 1]}
    row = {"image": Image.fromarray(pixels), "width": 320, "height": 240, "objects": objects}

    (picture,) = detection._pictures([row])
    right, below = (detection._mirrored(picture, axis) for axis in (0, 1))

    torch.testing.assert_close(
        picture["labels"]["boxes"], torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.55, 0.875, 0.1, 0.25]])
    )
    for other, corner in ((picture, (0, 0)), (right, (0, -1)), (below, (-1, 0))):
        assert other["pixel_values"].shape == (3, detection.HEIGHT, detection.WIDTH)
        assert [other["pixel_values"][0][at].item() for at in (corner, (-1, -1))] == [1.0, 0.0]
    assert right["labels"]["boxes"][0].tolist() == [0.75, 0.25, 0.5, 0.5]
    assert below["labels"]["boxes"][0].tolist() == [0.25, 0.75, 0.5, 0.5]

    corners = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.75, 0.6, 1.0]])
    sure = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    assert detection.precisions([(corners, sure)], [picture], 2) == [1.0, 1.0]
    assert detection.precisions([(corners, 1 - sure)], [picture], 2) == [0.5, 0.5]
    assert detection.precisions([(corners + 0.4, sure)], [picture], 2) == [0.0, 0.0]


@pytest.mark.parametrize(
    ("distilled", "lower_is_better", "gain", "is_within_spread"),
    [([3.0, 4.0, 5.0], False, 2.0, True), ([4.0, 5.0, 6.0], False, 3.0, False), ([0.5, 0.5, 0.5], True, 1.5, True)],
)
def test_gains_are_marked_that_are_no_larger_than_the_spread(distilled, lower_is_better, gain, is_within_spread):
    arms = {
        name: {"runs": [{"score": value} for value in values]}
        for name, values in {"labels alone": [1.0, 2.0, 3.0], "distilled": distilled}.items()
    }
    job = {"score": "score", "lower_is_better": lower_is_better, "arms": arms, "teacher": {"score": 8.0}}
    assert report.gain(job, "distilled") == pytest.approx(gain)
    assert report.is_within_spread(job, "distilled") is is_within_spread

"""Rows on which the models differ most."""

from collections.abc import Mapping

import numpy as np

from hf_distill.heads import CTCHead, Head, QuestionAnsweringHead, RegressionHead
from hf_distill.report.answers import Answers
from hf_distill.report.resampling import Array, Sums
from hf_distill.report.results import Example


KINDS: Mapping[str, tuple[str, str]] = {
    "distilling helped": ("student", "baseline"),
    "distilling hurt": ("baseline", "student"),
    "lost from the teacher": ("teacher", "student"),
    "better than the teacher": ("student", "teacher"),
}
"""Kind of example → the model that does better on the row, and the one that does worse."""

LEAST_GAP = 1e-2
"""Of two scores of a row, so that rows on which both are right, or both wrong, are left out."""


def differing_rows(head: Head, answers: Answers, count: int) -> tuple[Example, ...]:
    """Up to `count` rows, as many of each kind, those of the largest difference first."""
    scores = {model: row_scores(head, sums) for model, sums in answers.sums.items()}
    known = {model: score for model, score in scores.items() if score is not None}
    pairs = {kind: pair for kind, pair in KINDS.items() if set(pair) <= known.keys()}
    examples, seen = [], set[int]()
    for kind, (better, worse) in pairs.items():
        gaps = np.nan_to_num(known[better] - known[worse], nan=-np.inf)
        order = [
            int(row) for row in np.argsort(-gaps, kind="stable") if gaps[row] > LEAST_GAP and int(row) not in seen
        ]
        for row in order[: max(1, count // len(pairs))]:
            seen.add(row)
            examples.append(_example(head, answers, kind, row))
    return tuple(examples[:count])


def row_scores(head: Head, sums: Sums) -> Array | None:
    """How well each row is answered, `(rows,)`, NaN where it has no label; None where nothing tells.

    Rows of one choice are right or wrong, and among these the likelier the truth was, the better.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        if isinstance(head, RegressionHead) and "xy" in sums:
            errors: Array = (sums["yy"] - 2 * sums["xy"] + sums["xx"]).mean(1)
            return -errors
        if isinstance(head, QuestionAnsweringHead) and "spans" in sums:
            overlap: Array = sums["overlap"][:, 0] / sums["spans"][:, 0]
            return overlap
        if isinstance(head, CTCHead) and "written" in sums:
            rate: Array = sums["edits"][:, 0] / sums["written"][:, 0]
            return -rate
        if "answers" not in sums:
            return None
        likelihood: Array = np.exp(-sums["nll"][:, 0] / sums["answers"][:, 0])
        if head.is_language_model:
            return likelihood
        share: Array = sums["correct"][:, 0] / sums["answers"][:, 0]
        return share + 1e-3 * likelihood


def _example(head: Head, answers: Answers, kind: str, row: int) -> Example:
    said = {model: _said(head, answers, model, row) for model in answers.sums}
    labels = answers.words.get("label")
    return Example(row, kind, answers.texts[row], labels[row] if labels else "", said)


def _said(head: Head, answers: Answers, model: str, row: int) -> str:
    if words := answers.words.get(model):
        return words[row]
    sums = answers.sums[model]
    if "written" in sums:
        return f"{sums['edits'][row, 0]:.0f} edits in {sums['written'][row, 0]:.0f} tokens"
    if head.is_language_model:
        return f"perplexity {np.exp(sums['nll'][row, 0] / sums['answers'][row, 0]):.4g}"
    return f"{sums['correct'][row, 0] / sums['answers'][row, 0]:.0%} right"

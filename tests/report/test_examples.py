"""Rows that are shown are those on which models differ."""

import numpy as np

from hf_distill.heads import SingleLabelHead
from hf_distill.heads.language_models import CausalLMHead
from hf_distill.report.answers import Answers
from hf_distill.report.examples import differing_rows, row_scores


def sums(correct, likelihood):
    count = np.ones((len(correct), 1))
    return {
        "correct": np.array(correct)[:, None] * count,
        "answers": count,
        "nll": -np.log(np.array(likelihood))[:, None],
    }


def test_kinds_and_their_order():
    answers = Answers(
        sums={
            "teacher": sums([1.0, 1, 0, 1, 1], [0.9, 0.9, 0.2, 0.9, 0.9]),
            "student": sums([1.0, 1, 1, 0, 1], [0.8, 0.9, 0.9, 0.1, 0.9]),
            "baseline": sums([0.0, 0, 1, 0, 1], [0.4, 0.1, 0.9, 0.1, 0.9]),
        },
        words={"label": list("abcde")},
        texts=[f"text {row}" for row in range(5)],
    )
    examples = differing_rows(SingleLabelHead(), answers, 8)
    assert [(each.kind, each.row) for each in examples] == [
        ("distilling helped", 1),  # the likelier one of the two
        ("distilling helped", 0),
        ("lost from the teacher", 3),
        ("better than the teacher", 2),
    ]
    assert examples[0].text == "text 1" and examples[0].label == "b"
    assert examples[0].answers == {"teacher": "100% right", "student": "100% right", "baseline": "0% right"}
    assert len(differing_rows(SingleLabelHead(), answers, 2)) == 2
    assert differing_rows(SingleLabelHead(), answers, 0) == ()


def test_text_is_told_by_its_likelihood():
    scores = row_scores(CausalLMHead(), sums([0.0, 1.0], [0.5, 0.25]))
    assert scores.tolist() == [0.5, 0.25]
    assert row_scores(SingleLabelHead(), {"rows": np.ones((2, 1))}) is None

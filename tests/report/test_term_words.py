"""Terms in words."""

from functools import partial

from hf_distill import HardLabelTerm, HiddenStateTerm, Linear, Objective, SoftTargetTerm
from hf_distill.functional import jensen_shannon
from hf_distill.report.term_words import term_rows


def test_weights_and_options():
    soft = SoftTargetTerm(Linear(4.0, 1.0), partial(jensen_shannon, beta=0.1))
    objective = Objective(
        {"labels": (Linear(0.1, 0.9), HardLabelTerm()), "soft": (1.0, soft), "hidden": (2.0, HiddenStateTerm("last"))}
    )
    labels, targets, hidden = term_rows(objective)
    assert labels == ["labels", "0.1 to 0.9", "`HardLabelTerm()`"]
    assert targets[1:2] == ["1"] and "Linear(start=4.0, end=1.0)" in targets[2]
    assert "divergence=jensen_shannon, beta=0.1" in targets[2]
    assert "layer_map='last'" in hidden[2] and "0x" not in hidden[2]

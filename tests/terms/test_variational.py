"""Variational information distillation, by the equation of the paper, with what it learns."""

import math

import pytest
import torch

from hf_distill import Objective, VariationalTerm, recipes
from hf_distill.terms import HardLabelTerm
from hf_distill.terms.variational import FIRST_VARIANCE, SMALLEST_VARIANCE
from hf_distill.types import Feature
from tests.terms.features import REAL, STUDENT, TEACHER, WIDE, learned, pair_of, signals_of, where
from tests.test_feature_training import trainer_of
from tests.tiny_trainers import loss_logs


def test_the_papers_equation_in_loops():
    """−log N(t; μ, σ²) without its constant: μ = W h + b, σ² = log(1 + exp α) + ε. The widths are 8 and 12."""
    term = VariationalTerm([(1, 2), (2, 4)]).bound("v", STUDENT, WIDE)
    parts = learned(term)
    for index, name in enumerate(("v_1_2_variance", "v_2_4_variance")):
        parts[name].values.data = torch.linspace(-3, 2 + index, 12)
    student = signals_of({Feature("hidden_states", layer) for layer in (1, 2)}, 1)
    teacher = signals_of(term.requires.teacher_features, 2, width=12)
    expected = 0.0
    for row, token in REAL.nonzero().tolist():
        for mine, yours in ((1, 2), (2, 4)):
            h = student.features[Feature("hidden_states", mine)][row, token].tolist()
            t = teacher.features[Feature("hidden_states", yours)][row, token].tolist()
            weight, bias = (parts[f"v_{mine}_{yours}"].state_dict()[key].tolist() for key in ("weight", "bias"))
            alpha = parts[f"v_{mine}_{yours}_variance"].values.tolist()
            for d in range(12):
                mean = sum(w * x for w, x in zip(weight[d], h, strict=True)) + bias[d]
                variance = math.log(1 + math.exp(alpha[d])) + SMALLEST_VARIANCE
                expected += 0.5 * (math.log(variance) + (t[d] - mean) ** 2 / variance) / 12 / 2
    ours, _ = pair_of(term, parts)
    assert term(ours, teacher, where(), 0.0).total.item() == pytest.approx(expected, rel=1e-5)


def test_the_first_variance():
    values = learned(VariationalTerm("last").bound("v", STUDENT, WIDE))["v_2_4_variance"].values
    variances = torch.log1p(values.exp()) + SMALLEST_VARIANCE
    assert torch.allclose(variances, torch.full((12,), FIRST_VARIANCE))


def test_gradients_of_what_is_learned():
    term = VariationalTerm("last").bound("v", STUDENT, TEACHER)
    student, teacher = (
        signals.features.values() for signals in pair_of(term, dtype=torch.float64, parts=double(term))
    )
    (theirs,) = teacher
    by_ndim = sorted(student, key=lambda tensor: -tensor.ndim)
    assert [tensor.ndim for tensor in by_ndim] == [3, 1]

    def distances(means, alphas):
        return term.distances([means, alphas], [theirs], REAL)

    assert torch.autograd.gradcheck(distances, [tensor.clone().requires_grad_() for tensor in by_ndim])


def double(term):
    return {name: part.double() for name, part in learned(term).items()}


def test_a_map_is_learned_between_equal_widths_too():
    parts = learned(VariationalTerm().bound("a.b", STUDENT, TEACHER))
    assert list(parts) == ["a_b_1_2", "a_b_1_2_variance", "a_b_2_4", "a_b_2_4_variance"]


def test_map_and_variances_are_learned(tmp_path):
    """Whatever the student's own precision is, and so that the likelihood rises."""
    trainer = trainer_of(
        tmp_path, objective=Objective({"vid": (1.0, VariationalTerm())}), max_steps=30, learning_rate=0.02
    )
    parts = trainer._readers[0].parts
    before = {name: tensor.clone() for name, tensor in parts.state_dict().items()}
    trainer.train()
    assert all(not torch.equal(tensor, before[name]) for name, tensor in parts.state_dict().items())
    losses = [log["loss/vid"] for log in loss_logs(trainer)]
    assert losses[-1] < losses[0] - 0.1


def test_the_recipe():
    objective = recipes.vid(labels=0.5, weight=2.0, layer_map="skip")
    assert {name: weighted.term for name, weighted in objective.terms.items()} == {
        "labels": HardLabelTerm(),
        "information": VariationalTerm("skip"),
    }
    assert objective.weights(0.0) == {"labels": 0.5, "information": 2.0}

"""Contrastive distillation, by its equation over the rows of a micro-batch, with both maps that it learns."""

import math

import pytest
import torch

from hf_distill import ContrastiveTerm, Objective, recipes
from hf_distill.errors import ConfigurationError
from hf_distill.terms import HardLabelTerm, SoftTargetTerm
from hf_distill.types import Feature
from tests.gradients import GradientRecorder, relative_difference
from tests.terms.features import REAL, STUDENT, WIDE, learned, pair_of, signals_of, where
from tests.test_feature_training import trainer_of
from tests.tiny_models import PaddingCollator
from tests.tiny_trainers import loss_logs


def mapped(weight, bias, vector):
    out = [sum(w * x for w, x in zip(row, vector, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
    length = math.sqrt(sum(x * x for x in out))
    return [x / length for x in out]


@pytest.mark.parametrize("pooled", ["first", "last", "mean"])
def test_the_equation_in_loops(pooled):
    """Both sides of −log softmax over the three rows, of vectors that are mapped and divided by their lengths."""
    term = ContrastiveTerm(temperature=0.5, projection_size=4, pooled=pooled).bound("c", STUDENT, WIDE)
    parts = learned(term)
    student = signals_of({Feature("hidden_states", 2)}, 1).features[Feature("hidden_states", 2)]
    teacher = signals_of(term.requires.teacher_features, 2, width=12)
    theirs = teacher.features[Feature("hidden_states", 4)]
    of_student = parts["c_2_4"].weight.tolist(), parts["c_2_4"].bias.tolist()
    values = parts["c_2_4_teacher"].values.tolist()
    of_teacher = [row[:-1] for row in values], [row[-1] for row in values]
    s, t = [], []
    for row in range(3):
        tokens = REAL[row].nonzero().flatten().tolist()
        tokens = {"first": tokens[:1], "last": tokens[-1:], "mean": tokens}[pooled]
        pool = [(sum(states[row, i] for i in tokens) / len(tokens)).tolist() for states in (student, theirs)]
        s.append(mapped(*of_student, pool[0]))
        t.append(mapped(*of_teacher, pool[1]))
    scores = [[math.exp(sum(x * y for x, y in zip(a, b, strict=True)) / 0.5) for b in t] for a in s]
    expected = 0.0
    for i in range(3):
        expected -= math.log(scores[i][i] / sum(scores[i])) + math.log(scores[i][i] / sum(row[i] for row in scores))
    ours, _ = pair_of(term, parts)
    if pooled == "mean":  # of mapped states, which is what is mapped of their mean
        assert term.learned_parts().keys() == {"c_2_4", "c_2_4_teacher"}
    loss = term(ours, teacher, where(), 0.0)
    assert (loss.total.item(), loss.count.item()) == (pytest.approx(expected, rel=1e-5), 3)


def test_gradients_of_what_is_learned():
    term = ContrastiveTerm(temperature=0.5, projection_size=4).bound("c", STUDENT, WIDE)
    parts = {name: part.double() for name, part in learned(term).items()}
    student, _ = pair_of(term, parts, dtype=torch.float64)
    (theirs,) = signals_of(term.requires.teacher_features, 2, width=12, dtype=torch.float64).features.values()
    by_ndim = sorted(student.features.values(), key=lambda tensor: -tensor.ndim)
    assert [tuple(tensor.shape) for tensor in by_ndim] == [(3, 5, 4), (4, 13)]

    def distances(ours, of_teacher):
        return term.distances([ours, of_teacher], [theirs], REAL)

    assert torch.autograd.gradcheck(distances, [tensor.clone().requires_grad_() for tensor in by_ndim])


def gradient_of(folder, batch_size=8, extra_padding=0):
    torch.manual_seed(0)
    recorder = GradientRecorder()
    trainer = trainer_of(
        folder,
        dtype=torch.float64,
        objective=Objective({"crd": (1.0, ContrastiveTerm(projection_size=4))}),
        callbacks=[recorder],
        data_collator=PaddingCollator(extra_padding),
        max_steps=1,
        learning_rate=0.0,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=8 // batch_size,
    )
    trainer.train()
    return recorder.steps[0]


def test_padding_changes_nothing_and_splitting_does(tmp_path):
    whole, padded, split = gradient_of(tmp_path), gradient_of(tmp_path, extra_padding=5), gradient_of(tmp_path, 4)
    assert sum(name.startswith("_distillation.crd") for name in whole) == 3
    assert relative_difference(padded, whole) < 1e-6
    assert relative_difference(split, whole) > 1e-3


def test_both_maps_are_learned(tmp_path):
    trainer = trainer_of(
        tmp_path,
        objective=Objective({"crd": (1.0, ContrastiveTerm(projection_size=8))}),
        max_steps=30,
        learning_rate=0.02,
        per_device_train_batch_size=8,
    )
    parts = trainer._readers[0].parts
    before = {name: tensor.clone() for name, tensor in parts.state_dict().items()}
    trainer.train()
    losses = [log["loss/crd"] for log in loss_logs(trainer)]
    assert losses[-1] < 0.5 * losses[0]
    assert all(not torch.equal(tensor, before[name]) for name, tensor in parts.state_dict().items())


def test_arguments_that_it_cannot_have():
    with pytest.raises(
        ConfigurationError,
        match=r"temperature must be above 0, got 0\. projection_size must be .* 1, got 0\. pooled must be .* None",
    ):
        ContrastiveTerm(temperature=0, projection_size=0, pooled=None)


def test_the_recipe():
    objective = recipes.crd(labels=0.5, soft=0.25, weight=2.0, soft_temperature=3.0, pooled="first")
    assert {name: weighted.term for name, weighted in objective.terms.items()} == {
        "labels": HardLabelTerm(),
        "soft": SoftTargetTerm(3.0),
        "contrast": ContrastiveTerm(pooled="first"),
    }
    assert objective.weights(0.0) == {"labels": 0.5, "soft": 0.25, "contrast": 2.0}
    assert "soft" not in recipes.crd().terms

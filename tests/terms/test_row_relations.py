"""Rows that relate to each other as the teacher's do."""

import pytest
import torch

from hf_distill import Objective, RowRelationTerm, recipes
from hf_distill.errors import ConfigurationError
from hf_distill.functional import correlation_congruence, pkt, rkd_angle, rkd_distance, similarity_preserving
from tests.gradients import GradientRecorder, relative_difference
from tests.tiny_models import PaddingCollator, bert, rows_for
from tests.tiny_trainers import loss_logs, trainer_for


DISTANCES = (rkd_distance, rkd_angle, similarity_preserving, correlation_congruence, pkt)


def pair(width=24):
    sizes = {"hidden_size": width, "num_attention_heads": 2, "intermediate_size": 24}
    return bert(num_labels=3).double(), bert(layers=2, num_labels=3, **sizes).double()


def gradient_of(folder, objective, batch_size=8, extra_padding=0):
    recorder = GradientRecorder()
    student, teacher = pair()
    trainer = trainer_for(
        folder,
        student=student,
        teacher=teacher,
        callbacks=[recorder],
        objective=objective,
        data_collator=PaddingCollator(extra_padding),
        max_steps=1,
        learning_rate=0.0,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=8 // batch_size,
    )
    trainer.train()
    return recorder.steps[0], loss_logs(trainer)[0]


def vectors(model, rows):
    """One unpadded row at a time: the mean of its last hidden states."""
    inner = model.bert
    return torch.stack([inner(torch.tensor([row["input_ids"]])).last_hidden_state[0].mean(0) for row in rows])


def huber(value):
    return 0.5 * value**2 if abs(value) <= 1 else abs(value) - 0.5


def test_distances_of_rows_by_the_papers_equation(tmp_path):
    """Mean over all pairs of huber(ψ_t − ψ_s), ψ = ‖a − b‖ / mean of ‖a − b‖, in unequal widths."""
    rows = rows_for("single_label")
    gradients, log = gradient_of(tmp_path, Objective({"rows": (1.0, RowRelationTerm())}))
    student, teacher = pair()
    ours, theirs = vectors(student.train(), rows), vectors(teacher.eval(), rows).detach()
    pairs = [(i, j) for i in range(8) for j in range(8) if i != j]

    def psi(points):
        lengths = {(i, j): (points[i] - points[j]).norm() for i, j in pairs}
        mean = sum(lengths.values()) / len(pairs)
        return {key: length / mean for key, length in lengths.items()}

    s, t = psi(ours), psi(theirs)
    expected = sum(huber(t[key] - s[key]) for key in pairs) / len(pairs)
    expected.backward()
    named = {name: p.grad for name, p in student.named_parameters() if name in gradients and p.grad is not None}
    assert log["loss/rows"] == pytest.approx(expected.item(), rel=1e-6)
    assert relative_difference({name: gradients[name] for name in named}, named) < 1e-6
    assert sum(gradient.norm() for gradient in named.values()) > 1e-3


@pytest.mark.parametrize("distance", DISTANCES)
def test_padding_changes_nothing_and_splitting_does(tmp_path, distance):
    objective = Objective({"rows": (1.0, RowRelationTerm(distance=distance))})
    whole, _ = gradient_of(tmp_path, objective)
    padded, _ = gradient_of(tmp_path, objective, extra_padding=5)
    split, _ = gradient_of(tmp_path, objective, batch_size=4)
    assert relative_difference(padded, whole) < 1e-6
    assert relative_difference(split, whole) > 1e-3


def test_one_vector_a_row():
    with pytest.raises(ConfigurationError, match="pooled must be 'first', 'last' or 'mean'"):
        RowRelationTerm(pooled=None)


def test_the_recipe():
    objective = recipes.rkd(labels=0.5, distance=2.0, angle=4.0)
    assert objective.weights(0.0) == {"labels": 0.5, "distance": 2.0, "angle": 4.0}
    assert [weighted.term.distance for weighted in list(objective.terms.values())[1:]] == [rkd_distance, rkd_angle]
    assert recipes.rkd().weights(0.0) == {"labels": 1.0, "distance": 25.0, "angle": 50.0}

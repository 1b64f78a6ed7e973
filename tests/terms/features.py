"""Features of two made-up models, and where they count."""

from dataclasses import replace

import torch

from hf_distill.types import Anatomy, Positions, Signals, StackShape, Unit


STUDENT = Anatomy("Student", {"": StackShape(2, 8, 2, 8)})
TEACHER = Anatomy("Teacher", {"": StackShape(4, 8, 2, 8)})
WIDE = Anatomy("Wide", {"": StackShape(4, 12, 3, 12)})
REAL = torch.tensor(
    [[True, True, True, True, True], [True, True, True, False, False], [False, True, True, True, False]]
)


def pair_of(term, parts=None, **sizes):
    """Random signals of a bound term's student and teacher, and what the term learns, applied to the student's."""
    student = signals_of({replace(feature, projection=None) for feature in term.requires.student_features}, 1, **sizes)
    parts = learned(term) if parts is None else parts
    features = {}
    for feature in term.requires.student_features:
        tensor = student.features[replace(feature, projection=None)]
        features[feature] = tensor if feature.projection is None else parts[feature.projection](tensor).detach()
    return replace(student, features=features), signals_of(term.requires.teacher_features, 2, **sizes)


def learned(term):
    """The learned parts of a term, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return term.learned_parts()


def signals_of(features, seed, rows=3, length=5, width=8, dtype=torch.float32):
    """Random features; the attention of a row sums to 1."""
    made = {}
    for index, feature in enumerate(sorted(features, key=str)):
        generator = torch.Generator().manual_seed(100 * seed + index)
        shapes = {"hidden_states": (rows, length, width), "attentions": (rows, 2, length, length)}
        shape = shapes.get(feature.kind, (rows, 2, length, width // 2))
        made[feature] = torch.randn(shape, generator=generator).to(dtype)
        if feature.kind == "attentions":
            made[feature] = made[feature].softmax(-1)
    return Signals(torch.zeros(rows, 1), features=made)


def where(real=REAL, rows=3):
    tokens = {Unit.TOKEN: real, Unit.DECODER_TOKEN: real}
    num_rows = torch.tensor(rows if real is None else len(real))
    counts = {unit: num_rows if real is None else real.sum() for unit in tokens}
    return Positions(torch.ones(rows, dtype=torch.bool), {Unit.ROW: num_rows, **counts}, tokens)

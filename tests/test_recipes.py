"""Published methods are the objectives that their papers say."""

import math
from functools import partial

import pytest
import torch
from transformers import BertForMaskedLM, MambaConfig, MambaForCausalLM

from hf_distill import Linear, recipes
from hf_distill.errors import ConfigurationError, MissingInputError, UnsupportedModelError
from hf_distill.functional import (
    cosine_distance,
    inter_class_pearson_distance,
    non_target_class_kl,
    normalized_squared_distance,
    target_class_kl,
)
from hf_distill.terms import (
    AttentionScoreTerm,
    BoxTerm,
    DecoupledTerm,
    HardLabelTerm,
    HiddenStateTerm,
    IntraClassTerm,
    RelationTerm,
    SoftTargetTerm,
    UniversalLogitTerm,
)
from hf_distill.types import Requirements
from tests.gradients import GradientRecorder, relative_difference
from tests.tiny_models import (
    ALL_HEADS,
    VOCAB_SIZE,
    WITHOUT_CLASSES,
    PaddingCollator,
    bert,
    model_for,
    rows_for,
    whisper,
)
from tests.tiny_trainers import float32, loss_logs, trainer_for


def test_hinton():
    objective = recipes.hinton(temperature=4.0, alpha=0.1)
    assert {name: weighted.term for name, weighted in objective.terms.items()} == {
        "labels": HardLabelTerm(),
        "soft": SoftTargetTerm(4.0),
    }
    assert objective.weights(progress=0.5) == {"labels": 0.1, "soft": 0.9}


def test_hinton_reads_only_what_it_weighs():
    assert recipes.hinton(alpha=0).requires == Requirements(teacher=True)
    assert recipes.hinton(alpha=1).requires == Requirements(labels=True)


def test_hinton_with_a_moving_temperature():
    assert recipes.hinton(temperature=Linear(4.0, 2.0)).log_values(progress=0.5) == {"temperature/soft": 3.0}


@pytest.mark.parametrize("alpha", [-0.5, 1.5])
def test_hinton_refuses_a_negative_weight(alpha):
    with pytest.raises(ConfigurationError, match="alpha must be a number between 0 and 1, got "):
        recipes.hinton(alpha=alpha)


def test_hinton_refuses_a_temperature_of_0():
    with pytest.raises(ConfigurationError, match=r"temperature must be above 0 throughout training, got 0"):
        recipes.hinton(temperature=0)


def test_uld():
    """Temperature 1 and λ = 1.5 are those of the authors' code."""
    objective = recipes.uld()
    assert {name: weighted.term for name, weighted in objective.terms.items()} == {
        "labels": HardLabelTerm(),
        "soft": UniversalLogitTerm(1.0),
    }
    assert objective.weights(progress=0.5) == {"labels": 1.0, "soft": 1.5}


def test_uld_with_values_that_move():
    objective = recipes.uld(temperature=Linear(4.0, 2.0), weight=Linear(0.0, 1.0))
    assert objective.log_values(progress=0.5) == {"temperature/soft": 3.0, "weight/soft": 0.5}


def one_step(folder, head, objective, rows, batch_size, accumulation=1, extra_padding=0):
    """The gradient and the log of a step over all rows, in float64, which moves nothing."""
    recorder = GradientRecorder()
    trainer = trainer_for(
        folder,
        head,
        model_for(head, 1).double(),
        model_for(head, 2).double(),
        rows,
        [recorder],
        objective=objective,
        data_collator=PaddingCollator(extra_padding),
        max_steps=1,
        learning_rate=0.0,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
    )
    trainer.train()
    (gradients,), (log,) = recorder.steps, loss_logs(trainer)
    return gradients, log


def test_dkd():
    objective = recipes.dkd(temperature=3.0, alpha=1.0, beta=2.0)
    assert {name: weighted.term for name, weighted in objective.terms.items()} == {
        "labels": HardLabelTerm(),
        "target": DecoupledTerm(3.0, target_class_kl),
        "non_target": DecoupledTerm(3.0, non_target_class_kl),
    }
    assert objective.weights(progress=0.5) == {"labels": 1.0, "target": 1.0, "non_target": 2.0}


SHIFTS = {"single_label": 0, "tokens": 0, "masked": 0, "causal": 1}


@pytest.mark.parametrize("head", SHIFTS)
def test_dkd_is_the_papers_loss_in_loops(tmp_path, head):
    """L = CE + α TCKD + β NCKD over the labels, one row at a time; value and gradient."""
    rows, temperature, alpha, beta = rows_for(head), 3.0, 0.7, 2.0
    gradients, log = one_step(
        tmp_path, head, recipes.dkd(temperature, alpha, beta), rows, batch_size=2, accumulation=4
    )
    student, teacher = model_for(head, 1).double().train(), model_for(head, 2).double().eval()
    values = {"labels": [], "target": [], "non_target": []}
    for row in rows:
        labels = [row["labels"]] if head == "single_label" else row["labels"][SHIFTS[head] :]
        logits = [model(input_ids=torch.tensor([row["input_ids"]])).logits[0] for model in (student, teacher)]
        ours, theirs = ([scores] if scores.ndim == 1 else list(scores) for scores in logits)
        for scores, teacher_scores, label in zip(ours, theirs, labels, strict=False):
            if label == -100:
                continue
            q, p = (torch.exp(z / temperature) / torch.exp(z / temperature).sum() for z in (scores, teacher_scores))
            values["labels"].append(-torch.log(torch.exp(scores[label]) / torch.exp(scores).sum()))
            binary = [(p[label], q[label]), (1 - p[label], 1 - q[label])]
            values["target"].append(temperature**2 * sum(b * torch.log(b / a) for b, a in binary))
            others = [(p[c] / (1 - p[label]), q[c] / (1 - q[label])) for c in range(len(p)) if c != label]
            values["non_target"].append(temperature**2 * sum(b * torch.log(b / a) for b, a in others))
    means = {name: sum(terms) / len(terms) for name, terms in values.items()}
    (means["labels"] + alpha * means["target"] + beta * means["non_target"]).backward()
    expected = {name: p.grad for name, p in student.named_parameters() if p.grad is not None and name in gradients}
    assert relative_difference(gradients, expected) < 1e-6
    for name, mean in means.items():
        assert log[f"loss/{name}"] == pytest.approx(mean.item(), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("head", [head for head in ALL_HEADS if head not in WITHOUT_CLASSES])
def test_dkd_does_not_depend_on_how_a_batch_is_split(tmp_path, head):
    whole, whole_log = one_step(tmp_path, head, recipes.dkd(), rows_for(head), batch_size=8)
    split, split_log = one_step(tmp_path, head, recipes.dkd(), rows_for(head), batch_size=2, accumulation=4)
    padded, _ = one_step(tmp_path, head, recipes.dkd(), rows_for(head), batch_size=8, extra_padding=5)
    assert relative_difference(split, whole) < 1e-6
    assert relative_difference(padded, whole) < 1e-6
    assert whole_log["loss/target"] == pytest.approx(split_log["loss/target"], rel=1e-6)
    assert whole_log["loss/target"] > 1e-3


def test_dkd_refuses_labels_that_name_no_class(tmp_path):
    with pytest.raises(MissingInputError, match=r"targets are none\. Give the data set labels that name classes"):
        one_step(tmp_path, "regression", recipes.dkd(), rows_for("regression"), batch_size=8)


def test_dist():
    objective = recipes.dist(alpha=1.0, beta=2.0, gamma=0.5, temperature=4.0)
    assert {name: weighted.term for name, weighted in objective.terms.items()} == {
        "labels": HardLabelTerm(),
        "inter": SoftTargetTerm(4.0, inter_class_pearson_distance),
        "intra": IntraClassTerm(4.0),
    }
    assert objective.weights(progress=0.5) == {"labels": 1.0, "inter": 2.0, "intra": 0.5}
    assert recipes.dist(alpha=0).requires == Requirements(teacher=True)


def test_dist_is_the_papers_loss_in_loops(tmp_path):
    """L = α CE + β/B Σ over rows d(q, p) + γ/C Σ over classes d(q, p), d = 1 − ρ; value and gradient."""
    rows, (alpha, beta, gamma, temperature) = rows_for("single_label"), (1.0, 2.0, 0.5, 2.0)
    gradients, log = one_step(
        tmp_path, "single_label", recipes.dist(alpha, beta, gamma, temperature), rows, batch_size=8
    )
    student, teacher = model_for("single_label", 1).double().train(), model_for("single_label", 2).double().eval()
    inputs = [torch.tensor([row["input_ids"]]) for row in rows]
    ours, theirs = (torch.stack([model(input_ids=text).logits[0] for text in inputs]) for model in (student, teacher))
    q, p = (torch.exp(z / temperature) / torch.exp(z / temperature).sum(1, keepdim=True) for z in (ours, theirs))

    def distance(a, b):
        a, b = a - sum(a) / len(a), b - sum(b) / len(b)
        return 1 - (a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt()

    means = {
        "labels": sum(-torch.log_softmax(z, 0)[row["labels"]] for z, row in zip(ours, rows, strict=True)) / 8,
        "inter": sum(distance(q[row], p[row]) for row in range(8)) / 8,
        "intra": sum(distance(q[:, c], p[:, c]) for c in range(3)) / 3,
    }
    (alpha * means["labels"] + beta * means["inter"] + gamma * means["intra"]).backward()
    expected = {name: p.grad for name, p in student.named_parameters() if p.grad is not None and name in gradients}
    assert relative_difference(gradients, expected) < 1e-6
    for name, mean in means.items():
        assert log[f"loss/{name}"] == pytest.approx(mean.item(), rel=1e-6)


@pytest.mark.parametrize("head", ["answers", "masked", "causal"])
def test_dist_does_not_depend_on_padding(tmp_path, head):
    """But on how a batch is split, since it compares the rows of a micro-batch."""
    whole, _ = one_step(tmp_path, head, recipes.dist(), rows_for(head), batch_size=8)
    padded, _ = one_step(tmp_path, head, recipes.dist(), rows_for(head), batch_size=8, extra_padding=5)
    split, _ = one_step(tmp_path, head, recipes.dist(), rows_for(head), batch_size=2, accumulation=4)
    assert relative_difference(padded, whole) < 1e-6
    assert relative_difference(split, whole) > 1e-3
    assert all(math.isfinite(gradient.sum()) for gradient in split.values())


def test_hungarian_matching():
    objective = recipes.hungarian_matching(temperature=2.0, labels=0.5, classes=3.0, boxes=0.25)
    assert {name: weighted.term for name, weighted in objective.terms.items()} == {
        "labels": HardLabelTerm(),
        "soft": SoftTargetTerm(2.0),
        "boxes": BoxTerm(l1_weight=5.0, giou_weight=2.0),
    }
    assert objective.weights(progress=0.5) == {"labels": 0.5, "soft": 3.0, "boxes": 0.25}
    assert set(recipes.hungarian_matching(labels=0).terms) == {"soft", "boxes"}


def terms_of(objective):
    return {name: weighted.term for name, weighted in objective.terms.items()}


def test_patient_kd():
    objective = recipes.patient_kd(temperature=10.0, alpha=0.3, beta=0.2, layer_map="top")
    assert terms_of(objective) == {
        "labels": HardLabelTerm(),
        "soft": SoftTargetTerm(10.0),
        "patient": HiddenStateTerm("top", normalized_squared_distance, "first"),
    }
    assert objective.weights(0.0) == {"labels": 0.3, "soft": 0.7, "patient": 0.2}


def test_patient_kd_of_other_tokens():
    """A decoder's first token knows nothing of the row."""
    states = terms_of(recipes.patient_kd(pooled="last"))["patient"]
    assert states == HiddenStateTerm("skip", normalized_squared_distance, "last")


LAYERED = {
    "patient_kd": recipes.patient_kd,
    "distilbert": recipes.distilbert,
    "tinybert": partial(recipes.tinybert, "layers"),
    "minilm": recipes.minilm,
    "minilmv2": partial(recipes.minilmv2, num_relation_heads=4),
    "rkd": recipes.rkd,
    "vid": recipes.vid,
    "crd": recipes.crd,
    "nst": recipes.nst,
    "mobilebert_like": partial(recipes.mobilebert_like, [(1, 1), (2, 2)]),
}
"""Every recipe that reads layers."""


@pytest.mark.parametrize("name", LAYERED)
def test_recipes_of_layers_take_a_side(tmp_path, name):
    """Whisper has layers on two; a recipe that is not told which is refused in a sentence that helps."""
    models = {"student": whisper(2), "teacher": whisper(2)}
    changes = {**models, "rows": float32(rows_for("speech")), "max_steps": 1, "per_device_train_batch_size": 8}
    with pytest.raises(
        UnsupportedModelError, match=r"Pass side='decoder' or side='encoder' to the recipe, or to its t"
    ):
        trainer_for(tmp_path, "speech", objective=LAYERED[name](), **changes)
    for side in ("encoder", "decoder"):
        objective = LAYERED[name](side=side)
        trainer = trainer_for(tmp_path, "speech", objective=objective, **changes)
        read = trainer.distillation_objective.requires.student_features
        assert read and {feature.side for feature in read} == {side}
    trainer.train()
    assert math.isfinite(loss_logs(trainer)[0]["loss"])


@pytest.mark.parametrize("name", ["tinybert", "minilm", "minilmv2", "mobilebert_like"])
def test_a_model_without_attention_is_refused_in_one_sentence(tmp_path, name):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "vocab_size": VOCAB_SIZE}
    student, teacher = MambaForCausalLM(MambaConfig(**sizes)), MambaForCausalLM(MambaConfig(**sizes))
    with pytest.raises(
        UnsupportedModelError, match=r"MambaBlock has 0 self-attentions .* the recipes patient_kd, vid"
    ):
        trainer_for(tmp_path, "causal", student, teacher, objective=LAYERED[name]())
    for other in ("patient_kd", "rkd", "vid", "crd", "nst"):
        trainer_for(tmp_path, "causal", student, teacher, objective=LAYERED[other]())


def test_distilbert():
    objective = recipes.distilbert()
    assert terms_of(objective)["cosine"] == HiddenStateTerm("last", cosine_distance)
    assert objective.weights(0.0) == {"soft": 5.0, "labels": 2.0, "cosine": 1.0}


def test_tinybert():
    assert terms_of(recipes.tinybert("layers")) == {
        "embeddings": HiddenStateTerm([(0, 0)]),
        "hidden": HiddenStateTerm("uniform"),
        "attention": AttentionScoreTerm("uniform"),
    }
    assert terms_of(recipes.tinybert("prediction")) == {"soft": SoftTargetTerm(1.0)}
    with pytest.raises(ConfigurationError, match="stage must be 'layers' or 'prediction', got 'both'"):
        recipes.tinybert("both")


def test_minilm():
    terms = terms_of(recipes.minilm())
    assert [(term.relations, term.layer_map) for term in terms.values()] == [
        (("attention",), "last"),
        (("values",), "last"),
    ]


def test_minilmv2():
    objective = recipes.minilmv2(num_relation_heads=4, teacher_layer=3)
    assert terms_of(objective) == {
        "relations": RelationTerm([(-1, 3)], ("queries", "keys", "values"), num_relation_heads=4)
    }
    assert not objective.requires.labels
    assert terms_of(recipes.minilmv2())["relations"].relation_head_width == 16


def test_mobilebert_like():
    """Each layer has its turn, from the lowest up, and then the predictions have theirs."""
    objective = recipes.mobilebert_like([(1, 2), (2, 4)], transfer=0.5, alpha=0.25)
    assert terms_of(objective) == {
        "features_1": HiddenStateTerm([(1, 2)]),
        "attention_1": RelationTerm([(1, 2)], ("attention",)),
        "features_2": HiddenStateTerm([(2, 4)]),
        "attention_2": RelationTerm([(2, 4)], ("attention",)),
        "labels": HardLabelTerm(),
        "soft": SoftTargetTerm(1.0),
    }
    turns = {
        0.0: {"features_1": 1.0, "attention_1": 1.0},
        0.24: {"features_1": 1.0, "attention_1": 1.0},
        0.25: {"features_2": 1.0, "attention_2": 1.0},
        0.5: {"labels": 0.25, "soft": 0.75},
        1.0: {"labels": 0.25, "soft": 0.75},
    }
    for progress, expected in turns.items():
        assert {name: weight for name, weight in objective.weights(progress).items() if weight} == expected


@pytest.mark.parametrize(
    "layer_map, transfer", [([], 0.5), ([(1, 1)], 0.0), ([(1, 1)], 1.0), ("last", 0.5), ([1], 0.5), ([(1, 1)], "half")]
)
def test_mobilebert_like_without_turns(layer_map, transfer):
    with pytest.raises(
        ConfigurationError, match=r"layer_map must hold|transfer must lie between 0 and 1 and layer_map"
    ):
        recipes.mobilebert_like(layer_map, transfer)


def test_mobilebert_like_moves_one_layer_after_the_other(tmp_path):
    """In the first turn nothing above the first block is learned, in the last one everything is."""
    recorder = GradientRecorder()
    student, teacher = bert(BertForMaskedLM, layers=2), bert(BertForMaskedLM, layers=4, hidden_size=24)
    objective = recipes.mobilebert_like([(1, 2), (2, 4)], transfer=0.5)
    changes = {"max_steps": 4, "per_device_train_batch_size": 8, "callbacks": [recorder]}
    trainer_for(tmp_path, "masked", student, teacher, objective=objective, **changes).train()
    moved = [{name for name, gradient in step.items() if gradient.norm() > 0} for step in recorder.steps]
    blocks = [[any(f"encoder.layer.{block}." in name for name in step) for block in (0, 1)] for step in moved]
    assert blocks == [[True, False], [True, True], [True, True], [True, True]]
    heads = [any(name.startswith("cls.") for name in step) for step in moved]
    assert heads == [False, False, True, True]
    maps = [sorted(name for name in step if name.endswith("weight") and "_distillation" in name) for step in moved]
    assert maps == [["_distillation.features_1_1_2.weight"], ["_distillation.features_2_2_4.weight"], [], []]


@pytest.mark.parametrize(
    "objective",
    [
        recipes.patient_kd(),
        recipes.distilbert(),
        recipes.tinybert("layers"),
        recipes.tinybert("prediction"),
        recipes.minilm(),
        recipes.minilmv2(num_relation_heads=4),
        recipes.vid(),
        recipes.crd(),
        recipes.nst(),
    ],
    ids=[
        "patient_kd",
        "distilbert",
        "tinybert layers",
        "tinybert prediction",
        "minilm",
        "minilmv2",
        "vid",
        "crd",
        "nst",
    ],
)
def test_a_student_comes_closer_to_its_teacher(tmp_path, objective):
    """Masked tokens, by every recipe, for some steps."""
    student, teacher = bert(BertForMaskedLM, layers=2), bert(BertForMaskedLM, layers=4, hidden_size=24)
    changes = {"max_steps": 30, "per_device_train_batch_size": 8, "logging_steps": 1}
    trainer = trainer_for(tmp_path, "masked", student, teacher, objective=objective, **changes)
    trainer.train()
    losses = [log["loss"] for log in loss_logs(trainer)]
    assert losses[-1] < 0.8 * losses[0]
    assert all(f"loss/{name}" in loss_logs(trainer)[0] for name in objective.terms)


def test_distil_whisper():
    objective = recipes.distil_whisper()
    assert {name: weighted.term for name, weighted in objective.terms.items()} == {
        "labels": HardLabelTerm(),
        "soft": SoftTargetTerm(2.0),
    }
    assert objective.weights(progress=0.5) == {"labels": 0.8, "soft": 1.0}

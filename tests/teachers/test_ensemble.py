"""Several teachers that are asked together."""

import copy
from types import SimpleNamespace

import pytest
import torch
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from hf_distill import EnsembleTeacher, OnlineTeacher, Teacher, check_invariances, head_of, preflight_report
from hf_distill.errors import (
    ClassMismatchError,
    ConfigurationError,
    MissingTeacherError,
    UnsupportedModelError,
    UntrainedTeacherError,
)
from hf_distill.heads import MultiLabelHead
from hf_distill.types import Signals
from tests.gradients import ALPHA, TEMPERATURE, GradientRecorder, alpha_of, relative_difference
from tests.heads.test_dual_encoder import ROWS, clip, siglip, similarities
from tests.heads.test_dual_encoder import reference as dual_encoder_reference
from tests.reference import reference_gradients
from tests.slow_cases import slow_but
from tests.test_comparable import ORDER, TOKENS, language_model, named, padded, with_classes
from tests.tiny_models import PaddingCollator, bert, model_for, rows_for, word_tokenizer
from tests.tiny_trainers import loss_logs, trainer_for


WEIGHTS = (1.0, 3.0)
SHARES = (0.25, 0.75)


def members(task):
    return [model_for(task, layers).double() for layers in (2, 3)]


def gradients_of(output_dir, task, teacher, student=None, extra_padding=0, **changes):
    recorder = GradientRecorder()
    options = {"learning_rate": 0.0, "max_steps": 1, "per_device_train_batch_size": 8, **changes}
    student = (model_for(task, 1) if student is None else student).double()
    collator = PaddingCollator(extra_padding)
    trainer_for(
        output_dir, task, student=student, teacher=teacher, callbacks=[recorder], data_collator=collator, **options
    ).train()
    return recorder.steps[0]


class PlainMean:
    """The mean of models' scores by its definition: one position after the other, one class after the other."""

    def __init__(self, task, models, average):
        self.task, self.models, self.average = task, [model.eval() for model in models], average
        self.config = models[0].config

    def __call__(self, **inputs):
        outputs = [model(**inputs) for model in self.models]
        names = {"answers": ("start_logits", "end_logits"), "embeddings": ("last_hidden_state",)}
        names = names.get(self.task, ("logits",))
        return SimpleNamespace(**{name: self.of_scores([each[name] for each in outputs]) for name in names})

    def of_scores(self, scores):
        if scores[0].ndim > 1:
            return torch.stack([self.of_scores([each[i] for each in scores]) for i in range(len(scores[0]))])
        return torch.stack([self.of_class(scores, index) for index in range(len(scores[0]))])

    def of_class(self, scores, index):
        if self.task in ("regression", "embeddings") or self.average == "logits":
            return sum(share * each[index] for share, each in zip(SHARES, scores, strict=True))
        if self.task == "multi_label":
            yes = sum(share / (1 + torch.exp(-each[index])) for share, each in zip(SHARES, scores, strict=True))
            return torch.log(yes / (1 - yes))
        parts = (torch.exp(each[index]) / sum(torch.exp(z) for z in each) for each in scores)
        return torch.log(sum(share * part for share, part in zip(SHARES, parts, strict=True)))


SPLITS = {
    "one batch of 8": {},
    "4 batches of 2, padded further": {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "extra_padding": 5,
    },
}
WRITERS = ("tokens", "answers", "masked", "causal", "seq2seq", "transcripts")
TASKS = ("single_label", "multi_label", "regression", "embeddings", *WRITERS)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("task", slow_but(["single_label", "tokens", "causal"], TASKS))
def test_the_gradient_is_that_of_the_mean_by_its_definition(tmp_path, task, average):
    mean, rows = PlainMean(task, members(task), average), rows_for(task)
    alpha = alpha_of(task)
    _, expected = reference_gradients(model_for(task, 1).double(), mean, task, rows, TEMPERATURE, alpha)
    for split in SPLITS.values():
        split = {**split, "alpha": alpha}
        found = gradients_of(tmp_path, task, EnsembleTeacher(members(task), WEIGHTS, average), **split)
        assert relative_difference(found, {name: expected[name] for name in found}) < 1e-6


@pytest.mark.parametrize("build, activation", [(clip, "softmax"), (siglip, "sigmoid")])
def test_the_mean_of_dual_encoders(tmp_path, build, activation):
    """Of the distributions over texts and over images, or of the yes or no of each pair, of one micro-batch."""
    teachers = [build(layers).double().eval() for layers in (2, 3)]
    recorder = GradientRecorder()
    options = {"max_steps": 1, "learning_rate": 0.0, "per_device_train_batch_size": 8, "callbacks": [recorder]}
    teacher = EnsembleTeacher(teachers, WEIGHTS)
    trainer_for(tmp_path, student=build().double(), teacher=teacher, rows=ROWS, **options).train()
    student = build().double()
    ours = torch.stack([torch.stack(row) for row in similarities(student, ROWS)])
    with torch.no_grad():
        scores = [torch.stack([torch.stack(row) for row in similarities(model, ROWS)]) for model in teachers]
    own, _ = dual_encoder_reference(student, teachers[0], ROWS, activation)
    values = []
    if activation == "sigmoid":
        for index in range(64):
            p = sum(w / (1 + torch.exp(-z.flatten()[index])) for w, z in zip(SHARES, scores, strict=True))
            values.append(divergence(torch.stack((ours.flatten()[index], torch.zeros(()))), torch.stack((p, 1 - p))))
    else:
        for mine, theirs in ((ours, scores), (ours.T, [z.T for z in scores])):
            for row in range(8):
                p = sum(w * torch.exp(z[row]) / torch.exp(z[row]).sum() for w, z in zip(SHARES, theirs, strict=True))
                values.append(divergence(mine[row], p))
    (ALPHA * own + (1 - ALPHA) * sum(values) / len(values)).backward()
    expected = {name: p.grad for name, p in student.named_parameters() if p.grad is not None}
    assert relative_difference(recorder.steps[0], expected) < 1e-6


def divergence(scores, probabilities):
    """T² · KL from softened probabilities to softened scores."""
    p = probabilities ** (1 / TEMPERATURE) / (probabilities ** (1 / TEMPERATURE)).sum()
    q = torch.exp(scores / TEMPERATURE) / torch.exp(scores / TEMPERATURE).sum()
    return TEMPERATURE**2 * (p * (p / q).log()).sum()


def test_the_two_averages_and_other_weights_are_not_the_same(tmp_path):
    found = [
        gradients_of(tmp_path, "single_label", EnsembleTeacher(members("single_label"), weights, average))
        for weights, average in ((WEIGHTS, "probabilities"), (WEIGHTS, "logits"), (None, "probabilities"))
    ]
    assert all(relative_difference(each, found[0]) > 1e-3 for each in found[1:])


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_classes_are_aligned_before_they_are_averaged(tmp_path, average):
    first, second = (named(model) for model in members("single_label"))
    student = named(model_for("single_label", 1))
    expected, found, ignored = (
        gradients_of(tmp_path, "single_label", EnsembleTeacher(pair, WEIGHTS, average), copy.deepcopy(student))
        for pair in (
            copy.deepcopy([first, second]),
            [copy.deepcopy(first), with_classes(second, ORDER)],
            [copy.deepcopy(first), named(with_classes(second, ORDER))],
        )
    )
    assert relative_difference(found, expected) < 1e-12
    assert relative_difference(ignored, expected) > 1e-3


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("task", ["masked", "causal"])
def test_a_row_of_the_vocabulary_that_one_member_lacks_is_no_token_for_any(tmp_path, task, average):
    """The first member has the student's 44 rows, of which 40 are tokens; the second has these alone."""
    word_tokenizer(*TOKENS).save_pretrained(tmp_path / "teacher")
    gradients = {}
    for name, rows in {"padded": (4, 4, 0), "plain": (0, 0, 0)}.items():
        student, *models = (padded(language_model(task, i + 1), extra).double() for i, extra in enumerate(rows))
        for model in models:
            model.name_or_path = str(tmp_path / "teacher")
        teacher, options = EnsembleTeacher(models, WEIGHTS, average), {"processing_class": word_tokenizer(*TOKENS)}
        gradients[name] = gradients_of(tmp_path, task, teacher, student, alpha=0, **options)
    for name, gradient in gradients["padded"].items():
        gradients["padded"][name] = gradient[: len(gradients["plain"][name])]
    assert all(gradient.isfinite().all() for gradient in gradients["padded"].values())
    assert relative_difference(gradients["padded"], gradients["plain"]) < 1e-9


@pytest.mark.parametrize("task", ["single_label", "causal"])
@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_an_ensemble_of_one_trains_as_its_member_bit_for_bit(tmp_path, task, average):
    runs = []
    for teacher in (model_for(task, 2), EnsembleTeacher([model_for(task, 2)], [0.3], average), [model_for(task, 2)]):
        trainer = trainer_for(tmp_path, task, teacher=teacher, max_steps=4)
        trainer.train()
        runs.append(trainer)
    start = model_for(task, 1).state_dict()
    for name, value in runs[0].model.state_dict().items():
        assert all(torch.equal(value, run.model.state_dict()[name]) for run in runs[1:])
    assert any(not torch.equal(value, start[name]) for name, value in runs[0].model.state_dict().items())


def test_a_list_of_models_and_paths_is_a_teacher(tmp_path):
    first, second = model_for("single_label", 2), model_for("single_label", 3)
    second.save_pretrained(tmp_path / "second")
    trainer = trainer_for(
        tmp_path, teacher=[first, tmp_path / "second"], eval_dataset=rows_for("single_label"), report_agreement=True
    )
    before = [copy.deepcopy(member.model.state_dict()) for member in trainer.teacher.members]
    start = copy.deepcopy(trainer.model.state_dict())
    soft = trainer.evaluate()["eval_loss/soft"]
    trainer.args.max_steps = 20
    trainer.train()
    metrics = trainer.evaluate()
    assert metrics["eval_loss/soft"] < 0.5 * soft
    assert 0 <= metrics["eval_agreement"] <= 1
    assert any(not torch.equal(start[name], value) for name, value in trainer.model.state_dict().items())
    for member, weights in zip(trainer.teacher.members, before, strict=True):
        assert all(torch.equal(weights[name], value) for name, value in member.model.state_dict().items())
    assert trainer.teacher.weights == (0.5, 0.5)


def test_members_of_other_architectures_read_their_own_inputs(tmp_path):
    """BERT reads the types of tokens, which DistilBERT does not know."""
    other = DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=40, dim=16, n_heads=2, n_layers=1, hidden_dim=24, num_labels=3)
    )
    rows = [{**row, "token_type_ids": [1] * len(row["input_ids"])} for row in rows_for("single_label")]
    trainer = trainer_for(tmp_path, teacher=[bert(layers=2, num_labels=3), other], rows=rows)
    batch = next(iter(trainer.get_train_dataloader()))
    kept = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        types = batch["token_type_ids"]
        scores = trainer.teacher.members[0].model(**kept, token_type_ids=types).logits, other(**kept).logits
    expected = torch.stack([each.softmax(-1) for each in scores]).mean(0)
    torch.testing.assert_close(trainer.teacher.signals(batch).logits.exp(), expected)


@pytest.mark.parametrize("task", ["single_label", "open_multi_label", "causal"])
def test_the_promises_hold_and_the_preflight_sees_every_member(tmp_path, task):
    models = [model_for(task, layers) for layers in (2, 3)]
    trainer = trainer_for(tmp_path, task, teacher=models)
    report = check_invariances(trainer)
    assert all(check.held for check in report.checks), str(report)
    assert report["teacher unchanged"].difference == 0
    memory = preflight_report(trainer).memory
    assert memory.teacher == sum(4 * weight.numel() for model in models for weight in model.parameters())
    assert trainer.teacher.members[0].model is models[0]


def test_labels_decide_the_problem_for_every_member(tmp_path):
    trainer = trainer_for(tmp_path, "open_multi_label", teacher=[model_for("open_multi_label", i) for i in (2, 3)])
    trainer.train()
    assert all(type(member.head) is MultiLabelHead for member in trainer.teacher.members)
    assert all(member.model.config.problem_type == "multi_label_classification" for member in trainer.teacher.members)


def test_half_precision_is_averaged_in_full(tmp_path):
    batch = PaddingCollator()(rows_for("single_label"))
    low = [model_for("single_label", layers).bfloat16() for layers in (2, 3)]
    singles = [OnlineTeacher(model, head_of(model)) for model in low]
    logits = EnsembleTeacher(singles, average="logits").signals(batch).logits
    assert logits.dtype == torch.float32
    assert torch.equal(logits, sum(each.signals(batch).logits.float() for each in singles) / 2)


def test_an_ensemble_is_a_member_too():
    batch = PaddingCollator()(rows_for("single_label"))
    first, second = (
        OnlineTeacher(model_for("single_label", n), head_of(model_for("single_label", n))) for n in (2, 3)
    )
    nested = EnsembleTeacher([EnsembleTeacher([first, second], average="logits"), second], [2, 1], "logits")
    flat = EnsembleTeacher([first, second], [1, 2], "logits")
    torch.testing.assert_close(nested.signals(batch).logits, flat.signals(batch).logits)


FAULTS = {
    "no teacher": ({"teachers": []}, "`teachers` is empty"),
    "too few weights": ({"weights": [1.0]}, r"for each of the 2 teachers, got \[1\.0\]"),
    "a weight of 0": ({"weights": [1.0, 0.0]}, r"must be a positive number for each .*, got \[1\.0, 0\.0\]"),
    "no number": ({"weights": [1.0, float("nan")]}, r"got \[1\.0, nan\]"),
    "an unknown mean": ({"average": "median"}, "must be 'probabilities' or 'logits', got 'median'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_mean(fault):
    options, message = FAULTS[fault]
    with pytest.raises(ConfigurationError, match=message):
        EnsembleTeacher(**{"teachers": ["a", "b"], **options})


def test_each_member_is_checked_as_a_teacher_alone_is(tmp_path):
    good, student = model_for("single_label", 2), model_for("single_label", 1)
    model_for("masked", 2).save_pretrained(tmp_path / "untrained")
    with pytest.raises(
        UnsupportedModelError, match="has a SingleLabelHead and the teacher BertForTokenClassification"
    ):
        trainer_for(tmp_path, teacher=[good, model_for("tokens", 2)])
    with pytest.raises(ClassMismatchError, match="student has 3 classes and the teacher 4"):
        trainer_for(tmp_path, teacher=[good, bert(layers=2, num_labels=4)])
    with pytest.raises(MissingTeacherError, match="teacher and student are the same"):
        trainer_for(tmp_path, student=student, teacher=[good, student])
    assert all(parameter.requires_grad for parameter in student.parameters())
    with pytest.raises(UntrainedTeacherError, match="has no weights for"):
        trainer_for(tmp_path, teacher=[good, tmp_path / "untrained"])


class FourClasses(Teacher):
    input_names = frozenset({"input_ids"})

    def signals(self, batch):
        return Signals(torch.zeros(len(batch["input_ids"]), 4))


def test_scores_that_do_not_lie_beside_each_other():
    model = model_for("single_label", 2)
    teacher = EnsembleTeacher([OnlineTeacher(model, head_of(model)), FourClasses()])
    with pytest.raises(
        ConfigurationError, match=r"teachers\[0\]` have shape \(8, 3\) and those of `teachers\[1\]` \(8, 4"
    ):
        teacher.signals(PaddingCollator()(rows_for("single_label")))


def test_the_student_follows_what_the_members_agree_on(tmp_path):
    """Against the members' mean, not against either of them."""
    trainer = trainer_for(tmp_path, teacher=[model_for("single_label", n) for n in (2, 3)], alpha=0, max_steps=60)
    trainer.train()
    logs = [log["loss/soft"] for log in loss_logs(trainer)]
    assert logs[-1] < 0.05 * logs[0]

"""The rehearsed step: its numbers, what it refuses and warns of, and that it leaves no trace."""

import logging
import random

import numpy as np
import pytest
import torch
from transformers import SwinConfig, SwinForImageClassification, default_data_collator

from hf_distill import (
    During,
    HardLabelTerm,
    HiddenStateTerm,
    Linear,
    Objective,
    SoftTargetTerm,
    cache_teacher,
    preflight_report,
    student_from_teacher,
)
from hf_distill.balance import balancing_scales
from hf_distill.errors import ConfigurationError, MissingInputError
from hf_distill.heads import TokenClassificationHead
from hf_distill.rehearsal import check_lengths
from hf_distill.spread_rows import spread_rows
from tests.reference import reference_means
from tests.test_trial_batches import Pipe, Stream
from tests.tiny_models import ALL_HEADS, WITHOUT_OWN_LOSS, PaddingCollator, bert, llama, model_for, reformer, rows_for
from tests.tiny_trainers import loss_logs, trainer_for, unlabelled


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(logging.getLogger("hf_distill.rehearsal"), "warning", said.append)
    return said


def gradients_of(head):
    """The mean of each term on all rows and its gradient, from plain loops."""
    found = {}
    for name in ("labels", "soft"):
        student = model_for(head, 1).double()
        mean = reference_means(student, model_for(head, 2).double(), head, rows_for(head), 2.0)[name]
        mean.backward()
        parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in student.parameters()]
        found[name] = mean.item(), torch.cat([part.flatten() for part in parts])
    return found


@pytest.mark.parametrize("head", ["single_label", "causal", "answers"])
def test_the_sizes_of_terms_and_gradients_equal_the_reference(tmp_path, head):
    objective = Objective({"soft": (3.0, SoftTargetTerm(2.0)), "labels": (0.5, HardLabelTerm())})
    report = preflight_report(trainer_for(tmp_path, head, objective=objective, per_device_train_batch_size=8))
    expected = gradients_of(head)
    labels, soft = report.terms["labels"], report.terms["soft"]
    for name, size in report.terms.items():
        assert size.value == pytest.approx(expected[name][0], rel=1e-4)
        assert size.gradient == pytest.approx(size.weight * expected[name][1].norm().item(), rel=1e-3)
    cosine = torch.nn.functional.cosine_similarity(expected["labels"][1], expected["soft"][1], dim=0).item()
    assert soft.cosine == pytest.approx(cosine, abs=1e-3)
    assert (labels.weight, soft.weight, labels.ratio, labels.cosine) == (0.5, 3.0, 1.0, None)
    assert soft.ratio == pytest.approx(soft.gradient / labels.gradient)
    assert not any("gradient" in warning for warning in report.warnings)
    if head == "single_label":
        assert (labels.unit, labels.count, soft.unit, soft.count) == ("label", 8, "position", 8)
    assert report.longest_row == 9


def test_a_term_far_smaller_than_the_labels_is_warned_of(tmp_path, warnings):
    objective = Objective({"labels": (1.0, HardLabelTerm()), "soft": (1e-4, SoftTargetTerm())})
    report = preflight_report(trainer_for(tmp_path, objective=objective))
    assert report.terms["soft"].ratio < 0.01
    (warning,) = warnings
    size = report.terms["soft"].gradient
    assert f"term 'soft' is {size:.3g}, and that of 'labels' is {report.terms['labels'].gradient:.3g}" in warning


def test_without_labels_the_largest_term_is_the_measure(tmp_path, warnings):
    objective = Objective({"small": (1e-4, SoftTargetTerm()), "large": (1.0, SoftTargetTerm())})
    report = preflight_report(trainer_for(tmp_path, objective=objective, rows=unlabelled(rows_for("single_label"))))
    assert report.terms["large"].ratio == 1.0
    assert report.terms["small"].ratio == pytest.approx(1e-4)
    assert report.terms["small"].cosine is None
    assert len(warnings) == 1
    assert report.teacher is None


def test_a_weight_that_starts_at_nothing_counts_as_what_it_becomes(tmp_path, warnings):
    objective = Objective({"labels": (1.0, HardLabelTerm()), "soft": (Linear(0.0, 0.5), SoftTargetTerm())})
    assert preflight_report(trainer_for(tmp_path, objective=objective)).terms["soft"].weight == 0.5
    assert warnings == []


def test_a_term_that_is_0_is_not_said_to_weigh_too_little(tmp_path, warnings):
    """The embeddings of a student that was cut out of its teacher are the teacher's."""
    teacher = bert(layers=2, num_labels=3)
    student = student_from_teacher(teacher, num_hidden_layers=1)
    objective = Objective({"labels": (1.0, HardLabelTerm()), "embeddings": (1.0, HiddenStateTerm([(0, 0)]))})
    preflight_report(trainer_for(tmp_path, student=student, teacher=teacher, objective=objective))
    (warning,) = (each for each in warnings if "chance" not in each)
    assert "term 'embeddings' is 0 on a batch" in warning and "weight" not in warning


def test_terms_that_take_turns_are_not_measured_by_each_other(tmp_path, warnings):
    """The first term is over when the labels begin, and a turn in the middle weighs as much as it does then."""
    turns = {
        "first": (During(1e-4, 0.0, 0.3), SoftTargetTerm()),
        "second": (During(2.0, 0.3, 0.6), SoftTargetTerm()),
        "labels": (During(1.0, 0.6, 1.0), HardLabelTerm()),
    }
    report = preflight_report(trainer_for(tmp_path, objective=Objective(turns)))
    assert {name: size.weight for name, size in report.terms.items()} == {"first": 1e-4, "second": 2.0, "labels": 1.0}
    assert report.terms["second"].gradient > 1e-3
    assert warnings == []
    together = Objective(turns | {"third": (During(1e-6, 0.5, 0.7), SoftTargetTerm())})
    preflight_report(trainer_for(tmp_path, objective=together))
    assert len(warnings) == 1 and "of term 'third'" in warnings[0]


def test_a_teacher_at_chance_is_warned_of(tmp_path, warnings):
    rows = rows_for("single_label", lengths=(5,) * 40)
    report = preflight_report(trainer_for(tmp_path, rows=rows[:8], eval_dataset=rows))
    assert (report.teacher.num_rows, report.teacher.is_above_chance) == (40, False)
    assert str(report.teacher) in warnings[0]
    with torch.no_grad():
        teacher = model_for("single_label", 2)
        right = [teacher(torch.tensor([row["input_ids"]])).logits.argmax().item() == row["labels"] for row in rows]
    assert report.teacher.value == pytest.approx(sum(right) / 40)


@pytest.mark.parametrize(("options", "says"), [({}, "5 likeliest"), ({"drawn_at": 4.0}, ""), ({"top_k": 60}, "")])
def test_likeliest_tokens_that_are_a_small_part_are_warned_of(tmp_path, warnings, options, says):
    options = {"top_k": 5, "data_collator": PaddingCollator(), **options}
    teacher, rows = model_for("causal", 2), rows_for("causal")
    cache_teacher(teacher, unlabelled(rows), tmp_path / "cache", **options)
    changes = {"temperature": 4.0, "alpha": 0.0, "per_device_train_batch_size": len(rows)}
    trainer = trainer_for(tmp_path / "out", "causal", teacher=tmp_path / "cache", **changes)
    report = preflight_report(trainer)
    assert (report.teacher is None) == ("drawn_at" in options)  # how likely the others are is not known
    batch = trainer.data_collator(rows)
    logits = teacher.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    probabilities = logits[trainer.head.positions(batch).mask].div(4.0).softmax(-1)
    share = probabilities.topk(5).values.sum(-1).mean().item()
    found = [warning for warning in warnings if "likeliest" in warning]
    assert len(found) == bool(says)
    assert all(f"At temperature 4, that of the term 'soft', the teacher's {says}" in warning for warning in found)
    assert all(f"have {share:.2f} of its probability" in warning for warning in found)


def test_a_row_longer_than_the_positions_of_a_model_is_refused(tmp_path):
    trainer = trainer_for(tmp_path, teacher=bert(layers=2, num_labels=3, max_position_embeddings=8))
    message = r"a row has 9 tokens, and the teacher BertForSequenceClassification has 8 positions\. Truncate"
    with pytest.raises(ConfigurationError, match=message):
        preflight_report(trainer)
    with pytest.raises(ConfigurationError, match="9 tokens"):
        trainer.train()


def test_lengths_at_the_limit():
    models = {"student": bert(max_position_embeddings=9)}
    assert check_lengths({"student": 9}, models) == []
    with pytest.raises(ConfigurationError, match=r"10 tokens.* student .* 9 positions"):
        check_lengths({"student": 10, "teacher": 3}, models)
    (warning,) = check_lengths({"student": 10}, {"student": llama(max_position_embeddings=9)})
    assert warning.startswith("A row has 10 tokens, and the student LlamaForCausalLM has max_position_embeddings=9")


def test_other_vocabularies_are_warned_of_where_no_tokenizer_tells_more(tmp_path, warnings):
    teacher = bert(layers=2, num_labels=3, vocab_size=50)
    preflight_report(trainer_for(tmp_path, teacher=teacher))
    assert any("has vocab_size=40 and the teacher's vocab_size=50, and both are given the same" in w for w in warnings)
    warnings.clear()
    preflight_report(trainer_for(tmp_path))
    assert not any("vocab_size" in warning for warning in warnings)


@pytest.mark.parametrize("head", [head for head in ALL_HEADS if head not in WITHOUT_OWN_LOSS])
def test_the_students_own_loss_is_the_one_that_is_counted(tmp_path, warnings, head):
    rows = rows_for(head)
    for row in rows:
        row.update(
            {name: value.float() for name, value in row.items() if getattr(value, "dtype", None) == torch.double}
        )
    preflight_report(trainer_for(tmp_path, head, rows=rows))
    assert not any("own loss" in warning for warning in warnings)


class AveragesOverPadding(torch.nn.Module):
    """Takes the mean over all positions, labelled or not."""

    def __init__(self):
        super().__init__()
        self.inner = model_for("tokens", 1)
        self.config = self.inner.config

    def forward(self, input_ids, attention_mask=None, labels=None):
        outputs = self.inner(input_ids, attention_mask=attention_mask, labels=labels)
        share = (labels != -100).float().mean() if labels is not None else None
        return {"loss": outputs.loss * share if labels is not None else None, "logits": outputs.logits}


def test_a_loss_that_averages_over_something_else_is_warned_of(tmp_path, warnings):
    preflight_report(trainer_for(tmp_path, "tokens", student=AveragesOverPadding(), head=TokenClassificationHead()))
    (warning,) = (each for each in warnings if "own loss" in each)
    batch = PaddingCollator()([rows_for("tokens")[row] for row in spread_rows(4, 8)])
    outputs = model_for("tokens", 1).eval()(**batch)
    number = int((batch["labels"] != -100).sum())
    share = number / batch["labels"].numel()
    expected = f"{outputs.loss * share:.4g}, and the mean cross-entropy over the {number} labels"
    assert expected in warning and f"counted is {outputs.loss:.4g}" in warning


def test_models_that_expect_other_images_are_warned_of(tmp_path, warnings):
    """Swin reads images of any size, so nothing else would say it."""
    sizes = {"embed_dim": 8, "depths": [1], "num_heads": [2], "window_size": 2, "patch_size": 2, "num_labels": 3}
    student, teacher = (SwinForImageClassification(SwinConfig(**sizes, image_size=size)) for size in (8, 16))
    rows = [{**row, "pixel_values": row["pixel_values"].float()} for row in rows_for("images")]
    options = {"student": student, "teacher": teacher, "data_collator": default_data_collator}
    preflight_report(trainer_for(tmp_path, "images", rows=rows, **options))
    assert any("student's configuration has image_size=8 and the teacher's image_size=16" in each for each in warnings)
    warnings.clear()
    own = [{**row, "teacher_pixel_values": torch.zeros(3, 16, 16)} for row in rows]
    preflight_report(trainer_for(tmp_path, "images", rows=own, **options))
    assert not any("image_size" in each for each in warnings)


def test_missing_labels_are_refused(tmp_path):
    with pytest.raises(MissingInputError, match="labels"):
        preflight_report(trainer_for(tmp_path, rows=unlabelled(rows_for("single_label"))))


@pytest.mark.parametrize(("optim", "states"), [("adamw_torch", 2), ("sgd", 0), ("rmsprop", 1)])
def test_memory_is_counted_by_hand(tmp_path, optim, states):
    trainer = trainer_for(tmp_path, optim=optim)
    trainer.model.classifier.requires_grad_(False)
    memory = preflight_report(trainer).memory
    student = sum(p.numel() for p in trainer.model.parameters())
    trained = student - (16 * 3 + 3)
    teacher = sum(p.numel() for p in trainer.teacher.model.parameters())
    assert (memory.student, memory.gradients, memory.optimizer) == (4 * student, 4 * trained, 4 * trained * states)
    assert (memory.teacher, memory.logits) == (4 * teacher, 2 * 4 * 3 * 4)


@pytest.mark.parametrize("make_rows", [list, Stream], ids=["rows", "stream"])
def test_it_leaves_no_trace(tmp_path, capsys, make_rows):
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    ends = []
    for preflight in (True, False):
        torch.manual_seed(0), random.seed(0), np.random.seed(0)
        student = bert(num_labels=3, **dropout)
        rows = make_rows(rows_for("single_label"))
        trainer = trainer_for(tmp_path / str(preflight), student=student, rows=rows, preflight=preflight)
        trainer.train()
        assert ("ratio" in capsys.readouterr().out) == preflight
        logs = [{key: log[key] for key in ("loss", "loss/soft", "grad_norm")} for log in loss_logs(trainer)]
        ends.append((student.state_dict(), logs, random.random(), np.random.rand(), torch.rand(()).item()))
    (with_it, *others), (without, *expected) = ends
    assert all(torch.equal(with_it[name], without[name]) for name in without)
    assert others == expected
    untouched = bert(num_labels=3, **dropout).state_dict()
    assert any(not torch.equal(untouched[name], without[name]) for name in without)


def test_alone_it_leaves_no_gradient_and_no_mode(tmp_path):
    trainer = trainer_for(tmp_path)
    trainer.model.train()
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    preflight_report(trainer)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    assert trainer.model.training and trainer.optimizer is None and trainer.state.log_history == []
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.model.state_dict().items())


def test_it_runs_once(tmp_path, capsys):
    trainer = trainer_for(tmp_path)
    trainer.train()
    assert capsys.readouterr().out.count("cosine") == 1
    trainer.train()
    assert "cosine" not in capsys.readouterr().out


def test_a_stream_that_cannot_be_read_twice_is_not_rehearsed(tmp_path, warnings, capsys):
    trainer = trainer_for(tmp_path, rows=Pipe(rows_for("single_label")))
    report = preflight_report(trainer)
    assert (report.terms, report.teacher, report.memory) == ({}, None, None)
    assert warnings == [
        "The rehearsal is skipped: the training data is missing, or is a stream that cannot be copied."
    ]
    assert capsys.readouterr().out == ""


def test_sharded_weights_are_not_rehearsed(tmp_path, warnings):
    trainer = trainer_for(tmp_path)
    trainer.is_fsdp_enabled = True
    assert preflight_report(trainer).terms == {}
    assert "sharded" in warnings[0]


def test_reversible_layers_are_trained_without_a_rehearsal(tmp_path):
    rows = rows_for("single_label", lengths=(4, 8, 4, 8, 8, 4, 4, 8))  # whole chunks of four
    trainer = trainer_for(tmp_path, student=reformer(1), teacher=reformer(2), rows=rows, preflight=True)
    report = preflight_report(trainer)
    assert report.warnings == (
        "The rehearsal is skipped: ReformerForSequenceClassification has reversible layers, which compute gradients "
        "in train mode alone.",
    )
    before = {name: weight.clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    assert all(not torch.equal(weight, before[name]) for name, weight in trainer.model.named_parameters())


class Drawn(torch.utils.data.Dataset):
    """Rows that are drawn anew whenever they are asked for, as pictures are that are cut out at random."""

    def __len__(self):
        return len(rows_for("single_label"))

    def __getitem__(self, index):
        row = rows_for("single_label")[index]
        drawn = int(torch.randint(3, 20, ())), random.randrange(3, 20), np.random.randint(3, 20)
        return {**row, "input_ids": [*drawn, *row["input_ids"]]}


@pytest.mark.parametrize("weights", ["given", "balanced"])
def test_rows_that_are_drawn_are_drawn_alike_without_it(tmp_path, weights):
    objective = Objective({"labels": (0.5, HardLabelTerm()), "soft": (0.5, SoftTargetTerm(2.0))}, weights=weights)
    logs = []
    for preflight in (True, False):
        random.seed(0), np.random.seed(0)
        trainer = trainer_for(tmp_path, rows=Drawn(), preflight=preflight, objective=objective, learning_rate=0.0)
        before = torch.get_rng_state(), random.getstate()
        balancing_scales(trainer)
        assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()
        trainer.train()
        logs.append([{name: log[name] for name in ("loss/labels", "loss/soft")} for log in loss_logs(trainer)])
    assert logs[0] == logs[1] and logs[0][0] != logs[0][1]

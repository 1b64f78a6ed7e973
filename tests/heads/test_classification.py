"""Heads that choose a class."""

import pytest
import torch

from hf_distill.errors import ConfigurationError, UnsupportedModelError
from hf_distill.heads import MultiLabelHead, RegressionHead, SingleLabelHead, TokenClassificationHead
from hf_distill.types import Unit
from tests.tiny_models import bert, rows_for
from tests.tiny_trainers import loss_logs, trainer_for


TOKENS = torch.ones(2, 4, dtype=torch.long)
PADDING = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])


def test_single_label_compares_every_row():
    head = SingleLabelHead()
    where = head.positions({"input_ids": TOKENS, "labels": torch.tensor([2, -100])})
    assert where.mask.tolist() == [True, True]
    assert where.counts.items() >= {Unit.LABEL: 1, Unit.POSITION: 2}.items()
    logits = torch.randn(2, 3)
    assert head.logits({"logits": logits}, {}) is logits


def test_single_label_skips_what_has_no_rows():
    where = SingleLabelHead().positions({"return_loss": True, "scale": torch.tensor(2.0), "input_ids": TOKENS})
    assert where.mask.tolist() == [True, True]


def test_multi_label_scores_are_yes_or_no():
    head = MultiLabelHead(num_classes=3)
    logits = torch.tensor([[1.5, -0.5, 0.0], [2.0, 3.0, -4.0]])
    pairs = head.logits({"logits": logits}, {})
    assert torch.allclose(torch.softmax(pairs, dim=-1)[..., 0], torch.sigmoid(logits))
    assert torch.allclose(torch.softmax(pairs, dim=-1)[..., 1], 1 - torch.sigmoid(logits))


def test_multi_label_counts_every_class_of_every_row():
    where = MultiLabelHead(num_classes=3).positions({"input_ids": TOKENS, "labels": torch.zeros(2, 3)})
    assert where.mask.shape == (2, 3) and where.mask.all()
    assert where.counts.items() >= {Unit.LABEL: 6, Unit.POSITION: 6}.items()


def test_regression_counts_rows_and_leaves_no_number_out():
    where = RegressionHead().positions({"input_ids": TOKENS, "labels": torch.tensor([-100.0, 1.0])})
    assert where.counts.items() >= {Unit.LABEL: 2, Unit.POSITION: 2}.items()
    assert not RegressionHead().signals({"logits": torch.zeros(2, 1)}, {}).is_distribution


def test_tokens_are_compared_where_they_are_labelled():
    labels = torch.tensor([[-100, 1, 0, -100], [2, -100, -100, -100]])
    where = TokenClassificationHead().positions({"input_ids": TOKENS, "attention_mask": PADDING, "labels": labels})
    assert torch.equal(where.mask, labels != -100)
    assert where.counts.items() >= {Unit.LABEL: 3, Unit.POSITION: 3}.items()


def test_tokens_without_labels_are_compared_where_they_are_real():
    where = TokenClassificationHead().positions({"input_ids": TOKENS, "attention_mask": PADDING})
    assert torch.equal(where.mask, PADDING.bool())
    assert where.counts.items() >= {Unit.LABEL: 0, Unit.POSITION: 5}.items()


def test_word_pieces_without_a_label_by_choice():
    labels = torch.tensor([[1, -100, 2, -100], [-100, 0, -100, -100]])
    batch = {"input_ids": TOKENS, "attention_mask": PADDING, "labels": labels}
    where = TokenClassificationHead(compare="real").positions(batch)
    assert torch.equal(where.mask, PADDING.bool())
    assert where.counts.items() >= {Unit.LABEL: 3, Unit.POSITION: 5}.items()
    with pytest.raises(ConfigurationError, match=r"'labelled' or 'real', got 'masked'"):
        TokenClassificationHead(compare="masked")


OPEN = "open_multi_label"


def test_labels_decide_for_student_and_teacher_alike(tmp_path):
    """As if both configurations had said so; the teacher's says it afterwards, as the student's own forward does."""
    logs = []
    for task in (OPEN, "multi_label"):
        trainer = trainer_for(tmp_path, task)
        trainer.train()
        assert type(trainer.head) is type(trainer.teacher.head) is MultiLabelHead
        assert trainer.teacher.model.config.problem_type == trainer.model.config.problem_type
        logs.append([(log["loss/labels"], log["loss/soft"]) for log in loss_logs(trainer)])
    assert logs[0] == logs[1] and logs[0][0][1] > 0
    trainer_for(tmp_path, OPEN, student=trainer.model, teacher=trainer.teacher.model).train()


def test_labels_decide_in_evaluation_too(tmp_path):
    one, other = (trainer_for(tmp_path, task).evaluate(rows_for(OPEN)) for task in (OPEN, "multi_label"))
    assert one["eval_loss/soft"] == other["eval_loss/soft"] > 0


def test_labels_against_what_the_teacher_says(tmp_path):
    teacher = bert(layers=2, num_labels=3, problem_type="single_label_classification")
    with pytest.raises(UnsupportedModelError, match=r"has a MultiLabelHead and the teacher .* a SingleLabelHead"):
        trainer_for(tmp_path, OPEN, teacher=teacher).train()


def test_labels_that_fit_no_problem(tmp_path):
    rows = [{**row, "labels": [0.0, 1.0]} for row in rows_for(OPEN)]
    with pytest.raises(ConfigurationError, match=r"`labels` are torch\.float32 of shape \(4, 2\)"):
        trainer_for(tmp_path, OPEN, rows=rows).train()


@pytest.mark.parametrize("task", ["images", "sounds", "choices", "next_sentence", "decoded_single_label", OPEN])
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_the_student_moves_and_the_teacher_does_not(tmp_path, task, alpha):
    """With alpha=0 no label is needed."""
    rows = [
        {name: value.float() if torch.is_tensor(value) else value for name, value in row.items()}
        for row in rows_for(task)
    ]
    if alpha == 0:
        for row in rows:
            del row["labels"]
    trainer = trainer_for(tmp_path, task, rows=rows, alpha=alpha, max_steps=8)
    student, teacher = (
        [parameter.detach().clone() for parameter in model.parameters()]
        for model in (trainer.model, trainer.teacher.model)
    )
    trainer.train()
    assert not all(map(torch.equal, trainer.model.parameters(), student))
    assert all(map(torch.equal, trainer.teacher.model.parameters(), teacher))
    losses = [log["loss"] for log in loss_logs(trainer)]
    assert losses[-2] + losses[-1] < losses[0] + losses[1]


@pytest.mark.parametrize("task", ["single_label", "tokens"])
def test_labels_that_name_no_class(tmp_path, task):
    """Rows that are counted from 1 on: torch would only say that a target is out of bounds."""
    rows = [
        {**row, "labels": (torch.as_tensor(row["labels"]) + torch.as_tensor(row["labels"]).ge(0)).tolist()}
        for row in rows_for(task)
    ]
    trainer = trainer_for(tmp_path, task, rows=rows)
    with pytest.raises(ConfigurationError, match=r"`labels` holds \[3\], and the student has num_labels=3.* 0 to 2\."):
        trainer.train()
    trainer_for(tmp_path, task, rows=rows, alpha=0.0).train()


def test_a_replaced_loss_may_read_any_labels(tmp_path):
    def squares(outputs, *_, **__):
        return outputs.logits.square().sum()

    rows = [{**row, "labels": row["labels"] + 10} for row in rows_for("single_label")]
    trainer = trainer_for(tmp_path, rows=rows, compute_loss_func=squares)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.train()
    assert not all(map(torch.equal, trainer.model.parameters(), before))

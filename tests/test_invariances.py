"""The invariance check holds where it should, and finds what is broken."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from transformers import LayoutLMConfig, LayoutLMForSequenceClassification, MixtralConfig, MixtralForCausalLM, set_seed

from hf_distill import Head, Objective, SoftTargetTerm, check_invariances
from hf_distill.errors import ConfigurationError
from hf_distill.heads import SingleLabelHead
from hf_distill.types import TermLoss
from tests.test_trial_batches import Pipe
from tests.tiny_models import HEADS, NO_DROPOUT, SIZES, PaddingCollator, bert, model_for, reformer, rows_for
from tests.tiny_trainers import trainer_for


NAMES = ["accumulation", "order of rows", "padding", "temperature of soft", "teacher repeats itself"]
NAMES.append("teacher unchanged")


def broken(report):
    return {check.name for check in report.checks if check.held is False}


@pytest.mark.parametrize("head", HEADS)
def test_everything_holds_for_every_head(tmp_path, head):
    trainer = trainer_for(tmp_path, head)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    report = check_invariances(trainer)
    assert [check.name for check in report.checks] == NAMES
    assert all(check.held for check in report.checks), str(report)
    assert report["accumulation"].difference < 1e-6
    assert report.dtype == torch.float64
    assert trainer.model.dtype == trainer.teacher.model.dtype == torch.float32
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.model.state_dict().items())
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    assert not trainer._log_window.any()


class BoxCollator(PaddingCollator):
    """Four numbers a token, beside the token."""

    def __call__(self, rows):
        batch = super().__call__([{name: row[name] for name in ("input_ids", "labels")} for row in rows])
        width = batch["input_ids"].shape[1]
        batch["bbox"] = torch.stack(
            [nn.functional.pad(row["bbox"], (0, 0, 0, width - len(row["bbox"]))) for row in rows]
        )
        return batch


def test_inputs_of_several_numbers_a_token_are_padded_too(tmp_path):
    torch.manual_seed(0)
    boxes = torch.randint(0, 9, (20, 4)).sort(dim=-1).values
    rows = [{**row, "bbox": boxes[: len(row["input_ids"])]} for row in rows_for("single_label")]
    sizes = {**SIZES, **NO_DROPOUT, "num_hidden_layers": 1, "num_labels": 3, "initializer_range": 0.3}
    student, teacher = (LayoutLMForSequenceClassification(LayoutLMConfig(**sizes)) for _ in range(2))
    report = check_invariances(
        trainer_for(tmp_path, student=student, teacher=teacher, rows=rows, data_collator=BoxCollator())
    )
    assert report["padding"].held and report.held, str(report)


class MiscountingHead(SingleLabelHead):
    """Gives the mean where a sum is asked for."""

    def label_loss(self, outputs, batch):
        return super().label_loss(outputs, batch) / len(batch["labels"])


def test_a_head_that_averages_breaks_accumulation(tmp_path):
    report = check_invariances(trainer_for(tmp_path, head=MiscountingHead()))
    assert broken(report) == {"accumulation"}
    assert not report.held
    assert report["accumulation"].difference > 0.1
    assert "accumulation                             BROKEN" in str(report)


class LooksAtPadding(nn.Module):
    """Forgets the attention mask."""

    def __init__(self, normalise=False):
        super().__init__()
        self.inner = bert(num_labels=3)
        self.config, self.normalise = self.inner.config, normalise
        self.norm = nn.BatchNorm1d(3) if normalise else nn.Identity()

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.inner(input_ids, attention_mask=attention_mask if self.normalise else None).logits
        logits = self.norm(logits) if self.normalise else logits
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


def test_a_model_that_looks_at_padding_breaks_padding(tmp_path):
    report = check_invariances(trainer_for(tmp_path, student=LooksAtPadding(), head=SingleLabelHead()))
    assert broken(report) >= {"padding"}
    assert report["padding"].reason.startswith("the student's own answers change with padding")
    assert report["order of rows"].held


class NoticesThatARowIsAlone(LooksAtPadding):
    def forward(self, input_ids, attention_mask=None, labels=None):
        alone = len(input_ids) == 1
        return self.inner(input_ids, attention_mask=None if alone else attention_mask, labels=labels)


def test_a_model_that_answers_otherwise_alone_breaks_accumulation(tmp_path):
    report = check_invariances(trainer_for(tmp_path, student=NoticesThatARowIsAlone(), head=SingleLabelHead()))
    assert broken(report) == {"accumulation"}
    assert report["accumulation"].reason.startswith("the student's own answers change with the rows beside")


class NeedsTwoRows(LooksAtPadding):
    def forward(self, input_ids, attention_mask=None, labels=None):
        if len(input_ids) < 2:
            raise ValueError("two rows at least")
        return super().forward(input_ids, attention_mask, labels)


def test_a_model_that_refuses_single_rows_is_split_in_halves_alone(tmp_path):
    accumulation = check_invariances(trainer_for(tmp_path, student=NeedsTwoRows(), head=SingleLabelHead()))
    accumulation = accumulation["accumulation"]
    assert accumulation.difference is not None
    assert accumulation.reason == "a model refuses micro-batches of 1: two rows at least"


@pytest.mark.parametrize("fault", ["refuses", "overflows"])
def test_a_model_that_knows_no_float64_is_tried_in_float32(tmp_path, fault):
    student = model_for("single_label", 1)

    def in_float64(module, inputs, output):
        if output.dtype is not torch.float64:
            return output
        if fault == "refuses":
            raise RuntimeError("Expected mat_a to be Float32")
        return output * torch.inf

    student.classifier.register_forward_hook(in_float64)
    report = check_invariances(trainer_for(tmp_path, student=student))
    assert report.dtype == torch.float32
    assert report.held, str(report)


def test_a_gradient_that_is_not_finite_is_named(tmp_path):
    student = model_for("single_label", 1)
    student.classifier.register_forward_hook(lambda module, inputs, output: output * torch.nan)
    report = check_invariances(trainer_for(tmp_path, student=student))
    assert report["order of rows"].held is False
    assert report["order of rows"].reason == "the gradient is not finite"


def test_batch_normalisation_breaks_accumulation_and_is_named(tmp_path):
    trainer = trainer_for(tmp_path, student=LooksAtPadding(normalise=True), head=SingleLabelHead())
    report = check_invariances(trainer)
    assert report["accumulation"].held is False
    assert "batch normalisation" in report["accumulation"].reason
    assert report["order of rows"].held


def test_experts_that_are_balanced_break_accumulation_and_are_named(tmp_path):
    sizes = {**SIZES, "num_key_value_heads": 1, "num_local_experts": 2, "num_experts_per_tok": 1}

    def mixture(layers):
        set_seed(layers)
        routed = {"output_router_logits": True, "router_aux_loss_coef": 0.5, "initializer_range": 0.3}
        return MixtralForCausalLM(MixtralConfig(**sizes, **routed, num_hidden_layers=layers))

    report = check_invariances(trainer_for(tmp_path, "causal", student=mixture(1), teacher=mixture(2)))
    assert broken(report) == {"accumulation"}
    assert "balances the experts of a micro-batch" in report["accumulation"].reason
    alone = check_invariances(trainer_for(tmp_path, "causal", student=mixture(1), teacher=mixture(2), alpha=0.0))
    assert alone.held, str(alone)


def test_a_teacher_whose_scores_are_far_larger_than_the_student_s(tmp_path):
    teacher = model_for("single_label", 2)
    with torch.no_grad():
        teacher.classifier.weight.mul_(1000)
    report = check_invariances(trainer_for(tmp_path, teacher=teacher))
    assert report["temperature of soft"].held, str(report)


def test_a_student_that_says_what_its_teacher_says(tmp_path):
    report = check_invariances(trainer_for(tmp_path, teacher=model_for("single_label", 1)))
    assert report["temperature of soft"].held is None
    assert "student and teacher say the same" in report["temperature of soft"].reason
    assert report.held


def test_reversible_layers_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"Reformer.* has reversible layers, which compute"):
        check_invariances(trainer_for(tmp_path, student=reformer(1), teacher=reformer(2)))


@dataclass(frozen=True)
class WithoutSquare(SoftTargetTerm):
    """Hinton's term without T²."""

    def __call__(self, student, teacher, where, progress):
        total, count = super().__call__(student, teacher, where, progress)
        return TermLoss(total / self.temperature**2, count)


def test_a_missing_square_of_the_temperature_is_found(tmp_path):
    report = check_invariances(trainer_for(tmp_path, objective=Objective({"soft": (1.0, WithoutSquare())})))
    assert broken(report) == {"temperature of soft"}
    assert report["temperature of soft"].difference == pytest.approx(0.75, abs=0.01)


def test_a_teacher_with_dropout_is_found(tmp_path):
    teacher = model_for("single_label", 2)
    teacher.dropout.forward = lambda hidden: nn.functional.dropout(hidden, 0.5, training=True)
    report = check_invariances(trainer_for(tmp_path, teacher=teacher))
    assert "teacher repeats itself" in broken(report)
    assert "dropout" in report["teacher repeats itself"].reason


def test_a_teacher_that_shares_memory_with_the_student_is_found(tmp_path):
    student, teacher = bert(num_labels=3), model_for("single_label", 2)
    teacher.classifier.weight.data = student.classifier.weight.data
    report = check_invariances(trainer_for(tmp_path, student=student, teacher=teacher))
    assert broken(report) == {"teacher unchanged"}
    assert "classifier.weight" in report["teacher unchanged"].reason


def test_a_teacher_that_learns_from_its_inputs_is_found(tmp_path):
    teacher = model_for("single_label", 2)
    teacher.register_buffer("calls", torch.zeros(()))
    forward = type(teacher).forward

    class Counting(type(teacher)):
        def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, **inputs):
            self.calls += 1
            return forward(self, input_ids, attention_mask, token_type_ids, **inputs)

    teacher.__class__ = Counting
    report = check_invariances(trainer_for(tmp_path, teacher=teacher, head=SingleLabelHead()))
    assert broken(report) == {"teacher unchanged"}
    assert "calls" in report["teacher unchanged"].reason
    assert teacher.calls == 0


class Points(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, features, labels=None):
        logits = self.layer(features)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


class PointsHead(Head):
    def logits(self, outputs, batch):
        return outputs["logits"]

    def mask(self, batch):
        return torch.ones(len(batch["features"]), dtype=torch.bool)


def collated_points(rows):
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def test_what_cannot_be_tried_says_why(tmp_path):
    rows = [{"features": [1.0, 2.0], "labels": 1}]
    options = {"teacher": False, "head": PointsHead(), "rows": rows, "data_collator": collated_points, "alpha": 1.0}
    report = check_invariances(trainer_for(tmp_path, student=Points(), **options))
    assert [(check.name, check.held) for check in report.checks] == [
        ("accumulation", None),
        ("order of rows", True),
        ("padding", None),
    ]
    assert report["accumulation"].reason == "the batch has too few rows (1)"
    assert "attention_mask" in report["padding"].reason
    full = trainer_for(tmp_path, student=bert(num_labels=3, max_position_embeddings=9))
    assert check_invariances(full)["padding"].reason == "the batch is as wide as a model can read"


def test_at_least_one_row_is_asked_for(tmp_path):
    with pytest.raises(ConfigurationError, match=r"num_rows=-3 rows are to be checked on\. Give 1 or more"):
        check_invariances(trainer_for(tmp_path), num_rows=-3)


def test_sharded_weights_and_missing_rows_are_refused(tmp_path):
    trainer = trainer_for(tmp_path, rows=Pipe(rows_for("single_label")))
    with pytest.raises(ConfigurationError, match="gives no rows"):
        check_invariances(trainer)
    trainer.is_fsdp_enabled = True
    with pytest.raises(ConfigurationError, match="sharded"):
        check_invariances(trainer)

"""Heads that run only where positions count: the other rows of the last hidden state never reach them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.trainer_utils import unwrap_peft_model
from transformers.utils import logging

from hf_distill.heads import CausalLMHead, MaskedLMHead, Seq2SeqHead, SpeechSeq2SeqHead, TokenClassificationHead
from hf_distill.teachers import OnlineTeacher
from hf_distill.terms import DecoupledTerm, HardLabelTerm, IntraClassTerm, SoftTargetTerm, UniversalLogitTerm
from hf_distill.terms.feature_terms import FeatureTerm
from hf_distill.trial_batches import has_shards, leaving_no_trace
from hf_distill.types import IGNORED_LABEL, TEACHER_POSITIONS, Batch, Positions, Requirements, Signals, TopKLogits


logger = logging.get_logger(__name__)

POSITION_WISE = (MaskedLMHead, CausalLMHead, Seq2SeqHead, SpeechSeq2SeqHead, TokenClassificationHead)
"""Heads that make the logits of a position of its last hidden state alone."""

READING_ROWS = (HardLabelTerm, SoftTargetTerm, DecoupledTerm, IntraClassTerm, UniversalLogitTerm)
"""Terms that do not ask in which row of the batch a position stands."""

LARGEST_SHARE = 0.95
"""Of positions that count; above it there is nothing to save."""


@dataclass(frozen=True)
class HeadRows:
    """The positions of one batch that count, which are all that heads see.

    Rows of logits are `(n, 1, V)`. A model that compares position t with label t + 1 gets one row more, `(1, n + 1,
    V)`, so that its own shift meets the label of each position; that row is left out afterwards.
    """

    index: Tensor
    """Int64 `(n,)`, into the flattened positions."""
    is_shifted: bool

    def pick(self, tensor: Any) -> Any:
        """`(B, L, …)` → `(n, 1, …)`, or `(1, n, …)`."""
        if isinstance(tensor, TopKLogits):
            return tensor.of_parts(self.pick)
        return tensor.flatten(0, 1).index_select(0, self.index).unsqueeze(0 if self.is_shifted else 1)

    def of_positions(self, where: Positions) -> Positions:
        """All of which count."""
        targets = None if where.targets is None else self.pick(where.targets)
        return replace(where, mask=self.pick(where.mask), targets=targets)

    def of_labels(self, labels: dict[str, Any], where: Positions) -> dict[str, Any]:
        """What the model's own loss takes for these rows."""
        if not labels or where.targets is None:
            return labels
        picked = self.pick(where.targets)
        return {"labels": torch.nn.functional.pad(picked, (1, 0), value=IGNORED_LABEL) if self.is_shifted else picked}

    def of_signals(self, signals: Signals, was_hooked: bool) -> Signals:
        """A model's answers at these rows."""
        logits = signals.logits
        if not was_hooked:
            return replace(signals, logits=self.pick(logits))
        return replace(signals, logits=logits[:, :-1]) if self.is_shifted else signals

    @contextmanager
    def at_heads_of(self, *models: nn.Module) -> Iterator[None]:
        """While the body runs, these models' heads see these rows only."""
        handles = [_body(model).register_forward_hook(self._keep) for model in models]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, module: nn.Module, args: Any, output: Any) -> Any:
        rows = self if not self.is_shifted else replace(self, index=torch.cat((self.index, self.index[:1])))
        if isinstance(output, tuple):
            return rows.pick(output[0]), *output[1:]
        output["last_hidden_state"] = rows.pick(output["last_hidden_state"])
        return output


def head_rows(trainer: Any, batch: Batch, requires: Requirements) -> HeadRows | None:
    """The rows that heads may be restricted to on this training batch of a [`DistillationTrainer`].

    On the first batch the answers of student and teacher, and the student's own loss, are compared with those of whole
    heads. Where they differ, or a model refuses, heads stay whole from then on.

    Returns:
        None where heads have to be whole, or would not be smaller.
    """
    if trainer._heads_take_rows is False or not may_pick(trainer, batch):
        return None
    mask = trainer._positions(batch).mask
    if mask.device.type != "cpu":  # picking the positions would wait for the device to count them
        return None
    index = mask.flatten().nonzero()[:, 0]
    if not 0 < len(index) <= LARGEST_SHARE * mask.numel():
        return None
    rows = HeadRows(index, isinstance(trainer.head, CausalLMHead) and trainer.head.shifts_labels)
    if trainer._heads_take_rows is None:
        trainer._heads_take_rows = _agree(trainer, batch, requires, rows)
    return rows if trainer._heads_take_rows else None


def hooked_models(trainer: Any) -> list[nn.Module]:
    """The student, and a teacher that is one other model."""
    teacher = trainer.teacher
    is_apart = type(teacher) is OnlineTeacher and teacher.model is not trainer.model
    return [trainer.model, teacher.model] if is_apart else [trainer.model]


def may_pick(trainer: Any, batch: Batch) -> bool:
    """Whether nothing but the terms of the objective reads logits, and models, terms and labels are of known kinds."""
    terms = [weighted.term for weighted in trainer.distillation_objective.terms.values()]
    is_split = trainer.get_tp_size() * trainer.get_cp_size() * trainer.get_sp_size() > 1
    return (
        type(trainer.head) in POSITION_WISE
        and trainer.compute_loss_func is None
        and trainer.label_smoother is None
        and not (trainer.args.torch_compile or has_shards(trainer) or is_split)
        and not {TEACHER_POSITIONS, "shift_labels"} & batch.keys()
        and all(type(term) in READING_ROWS or isinstance(term, FeatureTerm) for term in terms)
        and all(isinstance(unwrap_peft_model(model), PreTrainedModel) for model in hooked_models(trainer))
    )


def _agree(trainer: Any, batch: Batch, requires: Requirements, rows: HeadRows) -> bool:
    """Whether heads that see these rows answer as whole heads do there."""
    try:
        with leaving_no_trace(trainer.model), torch.no_grad(), trainer.compute_loss_context_manager():
            student, teacher, *_ = trainer._compare(trainer.model, batch, requires)
            with rows.at_heads_of(*hooked_models(trainer)):
                own, others, *_ = trainer._compare(trainer.model, batch, requires, rows=rows)
        pairs = [(own.logits, rows.pick(student.logits)), (own.label_loss, student.label_loss)]
        pairs += [(others.logits, rows.pick(teacher.logits))] if teacher is not None else []
        agree = all(theirs is None or _is_close(ours, theirs) for ours, theirs in pairs)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        logger.debug(f"Heads that see some rows only were refused: {error}")
        agree = False
    if not agree:
        logger.info(f"The head of {type(trainer.model).__name__} or of its teacher runs at all positions.")
    return agree


def _is_close(ours: Tensor, theirs: Tensor) -> bool:
    tolerance = 1e-3 if theirs.element_size() >= 4 else 3e-2
    return ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def _body(model: nn.Module) -> nn.Module:
    """What makes the last hidden state that the head reads."""
    whole: Any = unwrap_peft_model(model)
    body: nn.Module = whole.base_model if whole.base_model is not whole else whole.get_decoder()
    return body

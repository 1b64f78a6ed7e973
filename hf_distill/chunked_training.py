"""A large vocabulary in training: heads hand over what they read, and the logits of all positions are never held."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from transformers.trainer_utils import unwrap_peft_model
from transformers.utils import logging

from hf_distill.functional import LinearLogits, chunked_distillation_loss, forward_kl, reverse_kl
from hf_distill.functional.chunked_head import ChunkedLoss
from hf_distill.functional.precision import computation_dtype
from hf_distill.head_positions import HeadRows, hooked_models, may_pick
from hf_distill.heads import CausalLMHead, MaskedLMHead, Seq2SeqHead, SpeechSeq2SeqHead
from hf_distill.heads.alignment import Alignment, JointAlignment, VocabularyAlignment
from hf_distill.objective import Objective
from hf_distill.schedules import as_schedule
from hf_distill.teachers import CachedTeacher, OnlineTeacher, online_teachers
from hf_distill.terms import HardLabelTerm, SoftTargetTerm
from hf_distill.terms.feature_terms import FeatureTerm
from hf_distill.trial_batches import leaving_no_trace
from hf_distill.types import IGNORED_LABEL, Batch, Positions, Requirements, Signals, TermLoss, TopKLogits, Unit


logger = logging.get_logger(__name__)

OF_VOCABULARIES = (MaskedLMHead, CausalLMHead, Seq2SeqHead, SpeechSeq2SeqHead)
"""Heads whose own loss is the cross-entropy over the vocabulary."""

SMALLEST_VOCABULARY = 1_000
SMALLEST_NUM_POSITIONS = 256
"""From which on the chunked loss is not slower, and holds three quarters of the memory or less: measured on a CPU by
`benchmarks/chunked_switch.py`, which looked at no smaller vocabulary."""

NUM_COMPARED = 64
"""Positions of the first batch whose logits are looked at: few, since there may be no room for more."""

NUM_SAMPLED, NUM_SAMPLED_SCORES = 256, 2**23
"""Positions by which a rehearsal judges a batch whose logits are never held, and how many scores they have at most:
what is rehearsed is to take less than what is trained."""

NUM_AT_ONCE = 128
"""Positions whose choices an evaluation compares."""


@dataclass(frozen=True)
class LinearHead:
    """The last map of a model, and what the model does to its logits."""

    module: nn.Linear
    scale: float
    softcap: float | None

    def logits(self, read: Tensor) -> LinearLogits:
        """Of what the head has read, `(…, H)`."""
        return LinearLogits(read.flatten(0, -2), self.module.weight, self.module.bias, self.scale, self.softcap)


@dataclass(frozen=True)
class ChunkedHeads:
    """The heads of one training step, which hand over what they read.

    The soft targets and the labels' loss are then computed from it a chunk at a time, with
    `functional.chunked_distillation_loss`.
    """

    student: LinearHead
    teacher: LinearHead | None
    """None where the teacher's logits are there anyway: it is a cache, or several."""
    soft: str
    """The name of the soft targets in the objective."""
    hard: str | None
    """That of the labels' loss, if the objective has it."""
    num_classes: int | None
    """Of both vocabularies, if one has rows that are no tokens."""
    autocast: Callable[[], AbstractContextManager[Any]]
    """The Trainer's mixed precision."""
    _read: dict[nn.Module, list[Tensor]] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights of the terms."""
        return computation_dtype(self.student.module.weight)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """While the body runs, heads read nothing, so that logits are of no position, and what was there is kept."""
        modules = {head.module: None for head in (self.student, self.teacher) if head is not None}
        handles = [module.register_forward_pre_hook(self._hold) for module in modules]
        self._read.clear()
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hold(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        (states,) = args
        self._read.setdefault(module, []).append(states)
        return (states[..., :0, :],)  # still in the graph, where DDP looks for the parameters that are used

    def logits(self) -> tuple[LinearLogits, LinearLogits | None]:
        """Of all positions that the heads would have read.

        Raises:
            ValueError: if a head was not called once by each model.
        """
        if self.teacher is None or self.teacher.module is not self.student.module:
            read = [self._read[head.module] for head in (self.student, self.teacher) if head is not None]
            reads = [states for (states,) in read]
        else:  # the student with its adapter off, which answers first
            theirs, ours = self._read[self.student.module]
            reads = [ours, theirs]
        return self.student.logits(reads[0]), None if self.teacher is None else self.teacher.logits(reads[1])

    def losses(
        self,
        objective: Objective,
        student: Signals,
        teacher: Signals | None,
        where: Positions,
        progress: float,
        weights: Tensor,
    ) -> tuple[dict[str, TermLoss], Tensor]:
        """Each term's sum and count, as the objective gives them.

        Args:
            weights: `(terms,)`, what each term's sum is multiplied by in the loss.

        Returns:
            The terms, of which those that read logits have no graph, and the number 0 with the gradient of their
            weighted sum.
        """
        soft: Any = objective.terms[self.soft].term
        with self.autocast():
            loss = self._chunked(teacher, where, soft, progress, dict(zip(objective.terms, weights, strict=True)))
        self._read.clear()
        totals = {self.soft: loss.soft, self.hard: loss.hard}
        losses = {
            name: TermLoss(totals[name], where.counts[weighted.term.unit])
            if name in totals
            else weighted.term(student, teacher, where, progress)
            for name, weighted in objective.terms.items()
        }
        return losses, loss.total - loss.total.detach()

    def agreeing(self, teacher: Signals | None, where: Positions) -> Tensor:
        """At how many of the positions that count both choose the same class. To be asked before `losses`."""
        student, theirs = self.logits()
        index, count = where.mask.flatten().nonzero()[:, 0], torch.zeros((), device=where.mask.device)
        said: Any = theirs if theirs is not None or teacher is None else _flat(teacher.logits)
        with self.autocast():
            for chunk in index.split(NUM_AT_ONCE):
                ours, others = (self._choices(_at(each, chunk)) for each in (student, said))
                count += (ours == others).sum()
        return count

    def _choices(self, logits: Any) -> Tensor:
        whole = _whole(logits) if isinstance(logits, LinearLogits) else logits
        chosen: Tensor = (whole if isinstance(whole, TopKLogits) else whole[:, : self.num_classes]).argmax(-1)
        return chosen

    def _chunked(
        self,
        teacher: Signals | None,
        where: Positions,
        soft: SoftTargetTerm,
        progress: float,
        weights: Mapping[str, Tensor],
    ) -> ChunkedLoss:
        ours, theirs = self.logits()
        student, targets = ours, None if self.hard is None else where.targets
        labels = None if targets is None else targets.flatten()
        mask: Tensor | None = where.mask.flatten()
        answers: Any = _flat(teacher.logits) if theirs is None and teacher is not None else theirs
        if _can_count(where):
            index, mask = where.mask.flatten().nonzero()[:, 0], None
            student, answers = _at(student, index), _at(answers, index)
            labels = None if labels is None else labels[index]
        return chunked_distillation_loss(
            student,
            answers,
            labels,
            mask=mask,
            num_classes=self.num_classes,
            temperature=as_schedule(soft.temperature)(progress),
            divergence=soft.divergence,
            soft_weight=weights[self.soft],
            hard_weight=0.0 if self.hard is None else weights[self.hard],
        )


def chunked_heads(trainer: Any, batch: Batch, requires: Requirements) -> ChunkedHeads | None:
    """The heads that need not run on this training batch of a [`DistillationTrainer`].

    On the first batch the logits that are made of what the heads read are compared with the models' own, at some
    positions, and the student's own loss with the cross-entropy. Where they differ, or a model refuses, heads run from
    then on.

    Returns:
        None where heads have to run, or where that is faster.
    """
    if trainer._heads_are_chunked is False or not may_pick(trainer, batch):
        return None
    heads = _heads_of(trainer)
    where = trainer._positions(batch)
    if heads is None or not _pays(heads.student, where) or (requires.labels and where.targets is None):
        return None
    if trainer._heads_are_chunked is None:
        trainer._heads_are_chunked = _agree(trainer, batch, requires, heads, where)
        if trainer._heads_are_chunked:  # so it is the same to leave out rows before the head
            trainer._heads_take_rows = True
        elif trainer._heads_are_chunked is False:
            logger.info(f"The head of {type(trainer.model).__name__} or of its teacher builds all logits.")
    return heads if trainer._heads_are_chunked else None


def sampled_positions(trainer: Any, batch: Batch, requires: Requirements) -> HeadRows | None:
    """Some positions of a batch that stand for all, where training never holds the logits of all.

    Returns:
        None where it does.
    """
    heads = chunked_heads(trainer, batch, requires)
    if heads is None:
        return None
    number = min(NUM_SAMPLED, max(NUM_COMPARED, NUM_SAMPLED_SCORES // heads.student.module.out_features))
    index = _compared_positions(trainer._positions(batch), requires)
    return _rows(trainer, index[:: math.ceil(len(index) / number)]) if len(index) else None


def _rows(trainer: Any, index: Tensor) -> HeadRows:
    return HeadRows(index, isinstance(trainer.head, CausalLMHead) and trainer.head.shifts_labels)


def _compared_positions(where: Positions, requires: Requirements) -> Tensor:
    """Those that count and have a label, where labels are read."""
    has_label = where.targets != IGNORED_LABEL if requires.labels else True
    return (where.mask & has_label).flatten().nonzero()[:, 0]


def _pays(head: LinearHead, where: Positions) -> bool:
    num_positions = int(where.mask.sum()) if _can_count(where) else where.mask.numel()
    return head.module.out_features >= SMALLEST_VOCABULARY and num_positions >= SMALLEST_NUM_POSITIONS


def _can_count(where: Positions) -> bool:
    """Whether nothing has to wait for a device to count positions. Elsewhere they are masked, not picked."""
    return where.mask.device.type == "cpu"


def _heads_of(trainer: Any) -> ChunkedHeads | None:
    """None if logits are needed for anything, or are made in another way."""
    terms = {name: weighted.term for name, weighted in trainer.distillation_objective.terms.items()}
    soft = [name for name, term in terms.items() if type(term) is SoftTargetTerm]
    hard = [name for name, term in terms.items() if type(term) is HardLabelTerm]
    others = [term for name, term in terms.items() if name not in (*soft, *hard)]
    is_apart = all(isinstance(term, FeatureTerm) for term in others)
    if type(trainer.head) not in OF_VOCABULARIES or len(soft) != 1 or len(hard) > 1 or not is_apart:
        return None
    teacher, term = trainer.teacher, terms[soft[0]]
    gives_top_k = isinstance(teacher, CachedTeacher) and teacher.gives_top_k
    if term.divergence not in ([forward_kl] if gives_top_k else [forward_kl, reverse_kl]):
        return None
    asks_the_student = any(each.model is trainer.model for each in online_teachers(teacher) if each is not teacher)
    student, num_classes = _linear_head(trainer.model), _num_classes(trainer._alignment)
    if student is None or num_classes == 0 or asks_the_student:
        return None
    of_teacher = _linear_head(teacher.model) if isinstance(teacher, OnlineTeacher) and not teacher.is_spread else None
    autocast = trainer.accelerator.autocast
    return ChunkedHeads(student, of_teacher, soft[0], hard[0] if hard else None, num_classes, autocast)


def _linear_head(model: nn.Module) -> LinearHead | None:
    """None where the head is more than a weight and a bias: an adapter, quantised, or something hooks into it."""
    whole: Any = unwrap_peft_model(model)
    module = whole.get_output_embeddings()
    if type(module) is not nn.Linear or "forward" in vars(module):
        return None
    if any(vars(module)[name] for name in vars(module) if name.endswith("_hooks") and "state_dict" not in name):
        return None
    config = whole.config.get_text_config(decoder=True)
    scale = getattr(config, "logit_scale", 1.0) * getattr(config, "lm_head_multiplier", 1.0)
    return LinearHead(
        module, scale / getattr(config, "logits_scaling", 1.0), getattr(config, "final_logit_softcapping", None)
    )


def _num_classes(alignment: Alignment) -> int | None:
    """How many classes both know, None for all; 0 where they are not the first ones of both."""
    if isinstance(alignment, JointAlignment):
        known = {_num_classes(member) for member in alignment.members}
        return known.pop() if len(known) == 1 else 0
    if type(alignment) is VocabularyAlignment:
        return alignment.num_tokens
    return None if type(alignment) is Alignment else 0


def _agree(trainer: Any, batch: Batch, requires: Requirements, heads: ChunkedHeads, where: Positions) -> bool | None:
    """Whether logits and the student's own loss are what is made of what the heads read; None if nothing counts."""
    index = _compared_positions(where, requires)[:NUM_COMPARED]
    if not len(index):
        return None
    rows = _rows(trainer, index)
    unlabelled = replace(requires, labels=False)
    try:
        with leaving_no_trace(trainer.model), torch.no_grad(), trainer.accelerator.autocast():
            with rows.at_heads_of(*hooked_models(trainer)):
                student, teacher, *_ = trainer._compare(trainer.model, batch, unlabelled, rows=rows)
            with heads.held_back():
                trainer._compare(trainer.model, batch, unlabelled)
            ours, theirs = heads.logits()
            pairs = [(ours, student)] if theirs is None else [(ours, student), (theirs, teacher)]
            agree = all(
                _is_close(_whole(_at(each, index))[:, : heads.num_classes], said.logits.flatten(0, -2), heads)
                for each, said in pairs
            )
            return agree and (not requires.labels or _loss_is_cross_entropy(trainer, batch, where, rows))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        logger.debug(f"Heads that are held back were refused: {error}")
        return False


def _loss_is_cross_entropy(trainer: Any, batch: Batch, where: Positions, rows: HeadRows) -> bool:
    """Whether the student's own loss is the mean cross-entropy of its own logits, in train mode too."""
    trainer.model.train()
    with rows.at_heads_of(trainer.model):
        student, _, _, outputs = trainer._compare(trainer.model, batch, Requirements(labels=True), rows=rows)
    logits, targets = student.logits.flatten(0, -2), rows.pick(where.targets).flatten()
    expected = cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), targets)
    own = student.label_loss / where.counts[Unit.LABEL]
    tolerance = 1e-5 if logits.element_size() >= 4 else 5e-3
    return outputs.get("aux_loss") is None and torch.allclose(own, expected.to(own.dtype), rtol=tolerance)


def _is_close(ours: Tensor, theirs: Tensor, heads: ChunkedHeads) -> bool:
    theirs = theirs[:, : heads.num_classes].to(ours.dtype)
    tolerance = 1e-4 if ours.element_size() >= 4 else 3e-2
    return ours.shape == theirs.shape and bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max())


def _whole(logits: LinearLogits) -> Tensor:
    built = linear(logits.hidden_states, logits.weight, logits.bias) * logits.scale
    return built if logits.softcap is None else torch.tanh(built / logits.softcap) * logits.softcap


def _at(logits: Any, index: Tensor) -> Any:
    """Logits, built or not, of some positions."""
    if isinstance(logits, LinearLogits):
        return logits._replace(hidden_states=logits.hidden_states[index])
    return logits[index]


def _flat(logits: Any) -> Any:
    """`(…, C)` → `(N, C)`."""
    if isinstance(logits, TopKLogits):
        return logits.of_parts(_flat)
    return logits.flatten(0, -2)

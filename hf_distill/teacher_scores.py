"""Whether a teacher knows more than nothing about a sample of labelled rows."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_distill.heads import CTCHead, DualEncoderHead, Head, QuestionAnsweringHead, RegressionHead
from hf_distill.heads.base import real_tokens
from hf_distill.heads.classification import MultiLabelHead
from hf_distill.types import IGNORED_LABEL, Batch, Positions, Signals


MIN_ANSWERS = 30
"""Fewer answers say nothing about chance."""
MAX_PROBABILITY = 0.05
UNIFORM_SHARE = 0.98
"""A language model's loss above this share of ln V is that of a uniform guess."""


@dataclass(frozen=True)
class TeacherScore:
    """A teacher's score on a sample, beside that of chance."""

    metric: str
    """accuracy, perplexity, or squared error."""
    value: float
    chance: float
    """accuracy: what the same answers get where they are independent of the labels (question answering: 1 / length;
    images and texts: 1 / pairs of the batch).
    Perplexity: the number of tokens in the vocabulary. Squared error: the variance of the labels."""
    is_above_chance: bool
    """False only where that is clear: 30 answers or more, and accuracies by a one-sided binomial test at 5 %."""
    num_rows: int

    def __str__(self) -> str:
        return f"{self.metric} {self.value:.4g}, chance {self.chance:.4g}"


def teacher_score(head: Head, answers: Iterable[tuple[Batch, Signals, Positions]]) -> TeacherScore | None:
    """The score of a teacher's answers to labelled batches; None if there are none, or the head has no known score.

    Args:
        answers: those over a vocabulary are large, and are let go one by one.
    """
    if head.is_language_model:
        return _perplexity(answers)
    answers = list(answers)
    if not answers:
        return None
    rows = sum(_num_rows(batch) for batch, _, _ in answers)
    if isinstance(head, RegressionHead):
        guesses = torch.cat([teacher.logits.double().flatten(1) for _, teacher, _ in answers])
        truths = torch.cat([batch["labels"].double().reshape(len(batch["labels"]), -1) for batch, _, _ in answers])
        error, variance = (guesses - truths).square().mean().item(), (truths - truths.mean(0)).square().mean().item()
        return TeacherScore("squared error", error, variance, error < variance or rows < MIN_ANSWERS, rows)
    if isinstance(head, QuestionAnsweringHead):
        return _answer_starts(answers, rows)
    if isinstance(head, DualEncoderHead):
        return _retrieval(head, answers, rows)
    if isinstance(head, CTCHead):
        return None  # it has more frames than labels, and a transcript is right or wrong as a whole
    if not isinstance(head, MultiLabelHead) and not all(_fit(batch, where) for batch, _, where in answers):
        return None
    pairs = [_classes(head, *answer) for answer in answers]
    guesses, truths = (torch.cat(parts).flatten(1) for parts in zip(*pairs, strict=True))
    return _accuracy(guesses, truths, rows)


def _num_rows(batch: Batch) -> int:
    return len(next(value for value in batch.values() if isinstance(value, Tensor) and value.ndim))


def _fit(batch: Batch, where: Positions) -> bool:
    """Whether there is one label for each position."""
    labels = batch.get("labels")
    return isinstance(labels, Tensor) and labels.numel() == where.mask.numel()


def binomial_tail(successes: int, trials: int, probability: float) -> float:
    """P(X ≥ successes) for X binomial."""
    if successes <= 0 or probability >= 1:
        return 1.0
    if probability <= 0:
        return 0.0
    logs = (
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(probability)
        + (trials - k) * math.log1p(-probability)
        for k in range(successes, trials + 1)
    )
    return min(1.0, sum(math.exp(log) for log in logs))


def _classes(head: Head, batch: Batch, teacher: Signals, where: Positions) -> tuple[Tensor, Tensor]:
    """The chosen and the true classes, `(answers, 1)`; several columns where each class is a yes or no."""
    if isinstance(head, MultiLabelHead):
        return teacher.logits.argmax(-1) == 0, batch["labels"].bool()
    counts = where.mask & (batch["labels"].reshape(where.mask.shape) != IGNORED_LABEL)
    return teacher.logits.argmax(-1)[counts][:, None], batch["labels"].reshape(where.mask.shape)[counts][:, None]


def _accuracy(guesses: Tensor, truths: Tensor, rows: int) -> TeacherScore | None:
    if not truths.numel():
        return None
    right = int((guesses == truths).sum())
    classes = torch.cat((guesses, truths)).unique()
    shares = [((guesses == each).double().mean(0) * (truths == each).double().mean(0)).mean() for each in classes]
    chance = min(1.0, torch.stack(shares).sum().item())
    return _tested_accuracy(right, truths.numel(), chance, rows)


def _answer_starts(answers: Sequence[tuple[Batch, Signals, Positions]], rows: int) -> TeacherScore:
    starts = [(teacher.logits[:, 0].argmax(-1), batch["start_positions"].flatten()) for batch, teacher, _ in answers]
    right = sum(int((guess == truth).sum()) for guess, truth in starts)
    chance = sum((1 / real_tokens(batch).sum(1)).sum().item() for batch, _, _ in answers) / rows
    return _tested_accuracy(right, rows, chance, rows)


def _retrieval(
    head: DualEncoderHead, answers: Sequence[tuple[Batch, Signals, Positions]], rows: int
) -> TeacherScore | None:
    """How often the text of an image is its own, among those of its batch."""
    logits = [teacher.logits for _, teacher, where in answers if where.mask.shape[-1] > 1]
    scores = [each[..., 0] if head.activation == "sigmoid" else each[0] for each in logits]
    if not scores:
        return None
    right = sum(int((each.argmax(-1) == torch.arange(len(each), device=each.device)).sum()) for each in scores)
    number = sum(len(each) for each in scores)
    return _tested_accuracy(right, number, len(scores) / number, rows)


def _tested_accuracy(right: int, number: int, chance: float, rows: int) -> TeacherScore:
    above = number < MIN_ANSWERS or binomial_tail(right, number, chance) <= MAX_PROBABILITY
    return TeacherScore("accuracy", right / number, chance, above, rows)


def _perplexity(answers: Iterable[tuple[Batch, Signals, Positions]]) -> TeacherScore | None:
    total, number, size, rows = 0.0, 0, 0, 0
    for batch, teacher, where in answers:
        if where.targets is None:
            return None
        logits, labels = teacher.logits[where.mask].float(), where.targets[where.mask]
        total += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        number += int((labels != IGNORED_LABEL).sum())
        size, rows = logits.shape[-1], rows + _num_rows(batch)
        del teacher, logits
    if not number:
        return None
    mean = total / number
    above = number < MIN_ANSWERS or mean < UNIFORM_SHARE * math.log(size)
    return TeacherScore("perplexity", math.exp(min(mean, 700.0)), float(size), above, rows)

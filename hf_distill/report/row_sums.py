"""What one model's answers to a batch come to, row by row: sums of which every metric is made."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hf_distill.functional import forward_kl, on_top_k
from hf_distill.heads import DualEncoderHead, Head, MultiLabelHead, QuestionAnsweringHead, RegressionHead
from hf_distill.heads.base import at_least_float32
from hf_distill.types import IGNORED_LABEL, Batch, Positions, Signals, TopKLogits


NUM_BINS = 15
"""Of confidence, from 0 to 1."""
MAX_CLASSES = 256
"""More classes are not counted one by one."""
SCORES_AT_ONCE = 2**25
"""Class scores that are turned into probabilities at a time."""
MAX_ANSWER_TOKENS = 30
"""Of the span that is read out of starts and ends, as in Transformers' pipeline for question answering, which has
15 words."""

RowSums = dict[str, Tensor]
"""Name → `(B, k)`."""


def row_sums(head: Head, model: Signals, teacher: Signals | None, where: Positions, batch: Batch) -> RowSums:
    """The sums of each row of a batch.

    Args:
        model: whose answers are measured, on the student's classes.
        teacher: whom they are compared with; None leaves that out. Of one of whom the likeliest classes alone are
            known, KL is that of [`functional.on_top_k`].
    """
    logits, others = model.logits, None if teacher is None else teacher.logits
    mask, targets = where.mask, where.targets
    if isinstance(head, DualEncoderHead) and head.activation == "softmax":  # (2, B, B): rows are on the second axis
        logits, mask = logits.transpose(0, 1), mask.transpose(0, 1)
        others = None if others is None else others.transpose(0, 1)
        targets = torch.arange(len(mask), device=mask.device)[:, None].expand(mask.shape)
    rows = {"rows": torch.ones(len(mask), 1, dtype=torch.float64, device=mask.device)}
    if not model.is_distribution:
        return rows | _of_numbers(head, logits, others, batch)
    sums = rows | _of_choices(head, logits, others, mask, targets)
    if isinstance(head, QuestionAnsweringHead) and targets is not None:
        sums |= _of_spans(logits, targets)
    return sums


def best_spans(logits: Tensor) -> Tensor:
    """`(B, 2)`: the likeliest first and last token of an answer, of logits `(B, 2, L)`."""
    starts, ends = at_least_float32(logits).unbind(1)
    pairs = starts[:, :, None] + ends[:, None, :]
    length = pairs.shape[-1]
    allowed = torch.ones_like(pairs[0], dtype=torch.bool).triu().tril(MAX_ANSWER_TOKENS - 1)
    best = pairs.masked_fill(~allowed, -torch.inf).flatten(1).argmax(1)
    return torch.stack((best // length, best % length), dim=1)


def edit_distance(first: Sequence[Any], second: Sequence[Any]) -> int:
    """The least number of insertions, deletions and replacements that make one of the other (Levenshtein).

    Example:

        >>> edit_distance("kitten", "sitting")
        3
    """
    costs = list(range(len(second) + 1))
    for row, one in enumerate(first, 1):
        previous, costs[0] = costs[0], row
        for column, other in enumerate(second, 1):
            previous, costs[column] = (
                costs[column],
                min(costs[column] + 1, costs[column - 1] + 1, previous + (one != other)),
            )
    return costs[-1]


def transcript_sums(logits: Tensor, mask: Tensor, labels: Tensor, blank: int) -> RowSums:
    """Edits and lengths of the transcripts that a CTC model writes greedily: repeated tokens once, blanks not."""
    edits, lengths = [], []
    for chosen, real, label in zip(logits.argmax(-1), mask, labels, strict=True):
        written = [token for token in chosen[real].unique_consecutive().tolist() if token != blank]
        truth = [token for token in label.tolist() if token not in (IGNORED_LABEL, blank)]
        edits.append(edit_distance(written, truth))
        lengths.append(len(truth))
    return {"edits": torch.tensor(edits)[:, None].double(), "written": torch.tensor(lengths)[:, None].double()}


def _of_numbers(head: Head, outputs: Tensor, others: Tensor | None, batch: Batch) -> RowSums:
    x = outputs.double().flatten(1)
    sums: RowSums = {}
    if others is not None:
        difference = x - others.double().flatten(1)
        sums["squared_distance"] = difference.square().sum(1, keepdim=True)
        sums["compared"] = torch.full_like(sums["squared_distance"], x.shape[1])
    if isinstance(head, RegressionHead) and head.has_labels(batch):
        y = batch["labels"].double().reshape(x.shape)
        sums |= {"x": x, "y": y, "xx": x * x, "yy": y * y, "xy": x * y}
    return sums


def _of_choices(head: Head, logits: Tensor, others: Tensor | None, mask: Tensor, targets: Tensor | None) -> RowSums:
    """Of every position that is compared: is the choice right, how likely was it, and what does the teacher say?"""
    rows = mask.nonzero()[:, 0]
    columns = mask.nonzero()[:, 1] if isinstance(head, MultiLabelHead) else None
    scores, theirs = logits[mask], None if others is None else others[mask]
    truths = None if targets is None else targets[mask]
    counted = _Counted(len(mask))
    size = max(1, SCORES_AT_ONCE // max(1, scores[:1].numel()))
    num_classes = logits.shape[1] if isinstance(head, MultiLabelHead) else logits.shape[-1]
    has_classes = head.class_axis is not None and not head.is_language_model and num_classes <= MAX_CLASSES
    for start in range(0, max(1, len(rows)), size):
        part = slice(start, start + size)
        own, where = at_least_float32(scores[part]), rows[part]
        if theirs is not None:
            teacher: Any = theirs[part]
            teacher = teacher if isinstance(teacher, TopKLogits) else at_least_float32(teacher)
            counted.add("agreed", where, _per_position(own.argmax(-1) == teacher.argmax(-1)))
            if getattr(teacher, "drawn_at", None) is None:
                counted.add("kl", where, _per_position(on_top_k(forward_kl)(own, teacher)))
            counted.add("compared", where, torch.ones_like(where))
        if truths is None or own.ndim != 2:
            continue
        is_labelled = truths[part] != IGNORED_LABEL
        own, where, truth = own[is_labelled], where[is_labelled], truths[part][is_labelled]
        column = None if columns is None else columns[part][is_labelled]
        _add_labelled(counted, own, where, truth)
        if has_classes:
            _add_classes(counted, own.argmax(-1), where, truth, column, num_classes)
    return counted.sums


def _add_labelled(counted: "_Counted", scores: Tensor, rows: Tensor, truths: Tensor) -> None:
    log_q = scores.log_softmax(-1)
    confidence, choice = log_q.exp().max(-1)
    correct = (choice == truths).double()
    counted.add("answers", rows, torch.ones_like(correct))
    counted.add("correct", rows, correct)
    counted.add("nll", rows, -log_q.gather(-1, truths[:, None])[:, 0])
    bins = (confidence * NUM_BINS).long().clamp(max=NUM_BINS - 1)
    for name, values in {"answers": torch.ones_like(correct), "correct": correct, "confidence": confidence}.items():
        counted.add(f"bin_{name}", rows, values, bins, NUM_BINS)


def _add_classes(
    counted: "_Counted", choices: Tensor, rows: Tensor, truths: Tensor, columns: Tensor | None, num_classes: int
) -> None:
    """How often each class is labelled, chosen, and both. Of many labels, a class is chosen by a yes, which is 0."""
    if columns is not None:
        named = {"labelled": truths == 0, "chosen": choices == 0, "hits": (truths == 0) & (choices == 0)}
        for name, is_named in named.items():
            counted.add(name, rows, is_named, columns, num_classes)
        return
    ones = torch.ones_like(choices)
    counted.add("labelled", rows, ones, truths, num_classes)
    counted.add("chosen", rows, ones, choices, num_classes)
    counted.add("hits", rows, choices == truths, choices, num_classes)


def _of_spans(logits: Tensor, targets: Tensor) -> RowSums:
    """Answers as spans of tokens, where the true one lies on real tokens."""
    guess = best_spans(logits)
    known = (targets != IGNORED_LABEL).all(1)
    first, last = torch.maximum(guess[:, 0], targets[:, 0]), torch.minimum(guess[:, 1], targets[:, 1])
    shared = (last - first + 1).clamp(min=0)
    lengths = (guess[:, 1] - guess[:, 0] + 1) + (targets[:, 1] - targets[:, 0] + 1)
    values = {"exact": (guess == targets).all(1), "overlap": 2 * shared / lengths.clamp(min=1), "spans": known}
    return {name: (value.double() * known)[:, None] for name, value in values.items()}


def _per_position(values: Tensor) -> Tensor:
    """A position may have several rows of scores: their mean."""
    return values.double().flatten(1).mean(1) if values.ndim > 1 else values


class _Counted:
    """Sums by row, and by column where they have one."""

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows
        self.sums: RowSums = {}

    def add(self, name: str, rows: Tensor, values: Tensor, columns: Tensor | None = None, width: int = 1) -> None:
        sums = self.sums.setdefault(
            name, torch.zeros(self._num_rows, width, dtype=torch.float64, device=values.device)
        )
        places = rows * width + (0 if columns is None else columns)
        sums.view(-1).index_add_(0, places, values.double())

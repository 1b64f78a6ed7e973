"""What teacher, student and baseline say to every row of a data set."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hf_distill.heads import CTCHead, Head, QuestionAnsweringHead, RegressionHead
from hf_distill.heads.classification import MultiLabelHead
from hf_distill.report.resampling import Sums
from hf_distill.report.row_sums import RowSums, best_spans, row_sums, transcript_sums
from hf_distill.trial_batches import collated, leaving_no_trace
from hf_distill.types import IGNORED_LABEL, Batch, Positions, Requirements, Signals, TopKLogits, Unit


MAX_TEXT = 400
"""Characters of a row that are shown."""


@dataclass
class Answers:
    """Of every model, row by row."""

    sums: dict[str, Sums] = field(default_factory=dict)
    """Model → sums of its rows."""
    words: dict[str, list[str]] = field(default_factory=dict)
    """Model → its answer to each row in words; empty where there are no words for it. So are the labels, as
    "label"."""
    texts: list[str] = field(default_factory=list)
    """What the row says, as far as it is text."""
    lengths: list[int] = field(default_factory=list)
    """Tokens of the row; empty where it is no text."""
    sample: dict[str, Any] = field(default_factory=dict)
    """The first batch."""


def collect(trainer: Any, baseline: nn.Module | None, dataset: Iterable[Any]) -> Answers:
    """Ask all models about every row, in eval mode and without a trace."""
    answers, sums = Answers(), dict[str, list[RowSums]]()
    names = _class_names(trainer)
    with ExitStack() as stack:
        for model in (trainer.model, baseline):
            if model is not None:
                stack.enter_context(leaving_no_trace(model.to(trainer.args.device)))
        stack.enter_context(torch.no_grad())
        stack.enter_context(trainer.compute_loss_context_manager())
        for rows in _slices(dataset, trainer.args.per_device_eval_batch_size):
            batch = collated(trainer, rows, for_evaluation=True)
            trainer._resolve_head(batch)
            answers.sample = answers.sample or batch
            signals, where = _ask(trainer, baseline, batch)
            teacher = signals.get("teacher") if trainer._alignment.same_classes else None
            for model, said in signals.items():
                is_compared = model != "teacher" and teacher is not None
                if model == "teacher" and (teacher is None or isinstance(said.logits, TopKLogits)):
                    continue
                counted = _sums(trainer, said, teacher if is_compared else None, where, batch)
                sums.setdefault(model, []).append(counted)
                words = in_words(trainer.head, said.logits, batch, names, trainer.processing_class)
                answers.words.setdefault(model, []).extend(words)
            labels = label_words(trainer.head, where, batch, names, trainer.processing_class)
            answers.words.setdefault("label", []).extend(labels)
            answers.texts.extend(_text(row, batch, index, trainer) for index, row in enumerate(rows))
            tokens = where.tokens.get(Unit.TOKEN)
            if tokens is not None and tokens.shape[0] == len(rows) and "input_ids" in batch:
                answers.lengths.extend(tokens.sum(1).tolist())
    answers.sums = {
        model: {name: np.concatenate([each[name].cpu().numpy() for each in parts]) for name in parts[0]}
        for model, parts in sums.items()
    }
    return answers


def _ask(trainer: Any, baseline: nn.Module | None, batch: Batch) -> tuple[dict[str, Signals], Positions]:
    student, teacher, where, _ = trainer._compare(trainer.model, batch, Requirements(teacher=True))
    signals = {"teacher": teacher, "student": student}
    if baseline is not None:
        alone, _, _, _ = trainer._compare(baseline, batch, Requirements())
        signals["baseline"] = trainer._alignment.of_student(alone)
    return signals, where


def _sums(trainer: Any, said: Signals, teacher: Signals | None, where: Positions, batch: Batch) -> RowSums:
    sums = row_sums(trainer.head, said, teacher, where, batch)
    if isinstance(trainer.head, CTCHead) and batch.get("labels") is not None:
        sums |= transcript_sums(said.logits, where.mask, batch["labels"], trainer.model.config.pad_token_id)
    return sums


def in_words(head: Head, logits: Tensor, batch: Batch, names: Mapping[int, str], tokenizer: Any) -> list[str]:
    """What a model says to each row; nothing where it says a class for each of many positions."""
    if isinstance(head, RegressionHead):
        return [", ".join(f"{value:.3g}" for value in row) for row in logits.float().flatten(1).tolist()]
    if isinstance(head, MultiLabelHead):
        return [_chosen(row, names) for row in (logits.argmax(-1) == 0).tolist()]
    if isinstance(head, QuestionAnsweringHead):
        return [_span(ids, span, tokenizer) for ids, span in zip(batch["input_ids"], best_spans(logits), strict=True)]
    if logits.ndim != 2 or not head.is_distribution or head.compares_rows:
        return []
    confidence, choice = logits.float().softmax(-1).max(-1)
    pairs = zip(choice.tolist(), confidence.tolist(), strict=True)
    return [f"{names.get(each, str(each))} ({share:.0%})" for each, share in pairs]


def label_words(head: Head, where: Positions, batch: Batch, names: Mapping[int, str], tokenizer: Any) -> list[str]:
    """What the labels of each row say."""
    if isinstance(head, RegressionHead) and head.has_labels(batch):
        return [
            ", ".join(f"{value:.3g}" for value in row) for row in batch["labels"].reshape(len(where.mask), -1).tolist()
        ]
    if where.targets is None:
        return []
    if isinstance(head, MultiLabelHead):
        return [_chosen(row, names) for row in (where.targets == 0).tolist()]
    if isinstance(head, QuestionAnsweringHead):
        return [_span(ids, span, tokenizer) for ids, span in zip(batch["input_ids"], where.targets, strict=True)]
    if where.targets.ndim != 1:
        return []
    return ["" if each == IGNORED_LABEL else names.get(each, str(each)) for each in where.targets.tolist()]


def _chosen(row: list[bool], names: Mapping[int, str]) -> str:
    return ", ".join(names.get(index, str(index)) for index, is_chosen in enumerate(row) if is_chosen) or "none"


def _span(ids: Tensor, span: Tensor, tokenizer: Any) -> str:
    first, last = span.tolist()
    if first == IGNORED_LABEL or last == IGNORED_LABEL:
        return ""
    if not hasattr(tokenizer, "decode"):
        return f"tokens {first} to {last}"
    text: str = tokenizer.decode(ids[first : last + 1], skip_special_tokens=True)
    return text.strip() or "no answer"


def _class_names(trainer: Any) -> Mapping[int, str]:
    config = getattr(trainer.model, "config", None)
    names: Mapping[int, str] = getattr(config, "id2label", None) or {}
    return names if trainer.head.class_axis is not None else {}


def _slices(dataset: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rows = (dataset[index] for index in range(len(dataset))) if hasattr(dataset, "__getitem__") else iter(dataset)  # type: ignore[arg-type]
    while part := list(islice(rows, size)):
        yield part


def _text(row: Any, batch: Batch, index: int, trainer: Any) -> str:
    """The strings of a row, or what its tokens say."""
    found = [value for value in row.values() if isinstance(value, str)] if isinstance(row, Mapping) else []
    ids = batch.get("input_ids")
    if not found and isinstance(ids, Tensor) and ids.ndim == 2 and hasattr(trainer.processing_class, "decode"):
        found = [trainer.processing_class.decode(ids[index], skip_special_tokens=True)]
    text = " · ".join(found)
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"

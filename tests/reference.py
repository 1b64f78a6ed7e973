"""The objective in plain loops, written from the formulas alone: what the Trainer's gradients are held against."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.tiny_models import WRITERS


ONE_CLASS_A_ROW = ("single_label", "decoded_single_label", "images", "sounds", "choices", "next_sentence")


def reference_means(
    student: PreTrainedModel, teacher: PreTrainedModel, head: str, rows: list[dict[str, Any]], temperature: float
) -> dict[str, Tensor]:
    """Each term's mean over all its units in `rows`, one row at a time and unpadded, and the rate of agreement."""
    values: dict[str, list[Tensor]] = {"labels": [], "soft": [], "agreement": []}
    for row in rows:
        ours = student(**_inputs(head, row, student))
        with torch.no_grad():
            theirs = teacher(**_inputs(head, row, teacher))
        label_losses, pairs = _row(head, row, ours, theirs)
        values["labels"] += label_losses
        distance = _squared_difference if head in ("regression", "embeddings") else _kl
        values["soft"] += [distance(mine, yours, temperature) for mine, yours in pairs]
        values["agreement"] += [(mine.argmax() == yours.argmax()).double() for mine, yours in pairs]
    return {name: sum(terms) / len(terms) for name, terms in values.items() if terms}


def reference_gradients(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    head: str,
    rows: list[dict[str, Any]],
    temperature: float,
    alpha: float,
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The means, and the gradient of their weighted sum."""
    means = reference_means(student, teacher, head, rows, temperature)
    (alpha * means.get("labels", 0.0) + (1 - alpha) * means["soft"]).backward()
    gradients = {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}
    return {name: mean.item() for name, mean in means.items()}, gradients


def _inputs(head: str, row: dict[str, Any], model: PreTrainedModel) -> dict[str, Tensor]:
    """One unpadded row as a batch of one, and what its decoder has read before each label."""
    labels = ("labels", "start_positions", "end_positions")
    inputs = {name: torch.as_tensor(value)[None] for name, value in row.items() if name not in labels}
    if head in WRITERS:
        start, pad = model.config.decoder_start_token_id, model.config.pad_token_id
        before = [start] + [pad if label == -100 else label for label in row["labels"][:-1]]
        inputs["decoder_input_ids"] = torch.tensor([before])
    return inputs


def _row(head: str, row: dict[str, Any], ours: Any, theirs: Any) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
    """The loss at every label of one row, and the scores of student and teacher at every position compared."""
    if head == "answers":
        pairs = [(ours.start_logits[0], theirs.start_logits[0]), (ours.end_logits[0], theirs.end_logits[0])]
        answers = (row["start_positions"], row["end_positions"])
        return [_cross_entropy(logits, answer) for (logits, _), answer in zip(pairs, answers, strict=True)], pairs
    if head == "embeddings":
        return [], [tuple(sum(states) / len(states) for states in (a.last_hidden_state[0] for a in (ours, theirs)))]
    mine, yours = ours.logits[0], theirs.logits[0]
    if head == "transcripts":
        return [ctc_loss(mine, row["labels"])], list(zip(mine, yours, strict=True))
    if head == "pixels":
        places = [(y, x) for y in range(8) for x in range(8) if row["labels"][y, x] != 255]
        large, theirs_large = _enlarged(mine, 8), _enlarged(yours, 8)
        labels = [_cross_entropy(large[y][x], int(row["labels"][y, x])) for y, x in places]
        return labels, [(large[y][x], theirs_large[y][x]) for y, x in places]
    if head in ONE_CLASS_A_ROW:
        return [_cross_entropy(mine, row["labels"])], [(mine, yours)]
    if head.endswith("multi_label"):
        no = torch.zeros((), dtype=mine.dtype)
        pairs = [(torch.stack((no, a)), torch.stack((no, b))) for a, b in zip(mine, yours, strict=True)]
        return [_cross_entropy(scores, int(y)) for (scores, _), y in zip(pairs, row["labels"], strict=True)], pairs
    if head == "regression":
        return [(mine[0] - row["labels"]) ** 2], [(mine, yours)]
    shift = 1 if head == "causal" else 0
    labelled = [t for t in range(len(row["labels"]) - shift) if row["labels"][t + shift] != -100]
    labels = [_cross_entropy(mine[t], row["labels"][t + shift]) for t in labelled]
    return labels, [(mine[t], yours[t]) for t in labelled]


def _probabilities(logits: Tensor, temperature: float = 1.0) -> list[Tensor]:
    powers = [torch.exp(logit / temperature) for logit in logits]
    return [power / sum(powers) for power in powers]


def _cross_entropy(logits: Tensor, label: int) -> Tensor:
    return -torch.log(_probabilities(logits)[label])


def _kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    q, p = _probabilities(student, temperature), _probabilities(teacher, temperature)
    return temperature**2 * sum(p_c * (torch.log(p_c) - torch.log(q_c)) for p_c, q_c in zip(p, q, strict=True))


def ctc_loss(logits: Tensor, labels: list[int], blank: int = 0) -> Tensor:
    """The negative logarithm of the sum over all paths, one frame a step, that read as the labels: Graves et al. 2006,
    section 4.1."""
    written = [blank, *(token for label in labels for token in (label, blank))]
    probabilities = [_probabilities(frame) for frame in logits]
    zero = torch.zeros((), dtype=logits.dtype)
    reached = [probabilities[0][token] if place < 2 else zero for place, token in enumerate(written)]
    for frame in probabilities[1:]:
        before = reached
        reached = []
        for place, token in enumerate(written):
            may_skip = place > 1 and token != blank and token != written[place - 2]
            ways = before[max(place - 2 if may_skip else place - 1, 0) : place + 1]
            reached.append(sum(ways) * frame[token])
    return -torch.log(sum(reached[-2:]))


def _squared_difference(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    return sum((a - b) ** 2 for a, b in zip(student, teacher, strict=True)) / len(student)


def _enlarged(scores: Tensor, size: int) -> list[list[Tensor]]:
    """The class scores `(C, h, w)` at every pixel of a `size` × `size` image, by the formula of bilinear sampling."""
    height, width = scores.shape[1:]

    def neighbours(pixel: int, length: int) -> list[tuple[int, float]]:
        centre = max((pixel + 0.5) * length / size - 0.5, 0.0)
        low, part = int(centre), centre - int(centre)
        return [(low, 1 - part), (min(low + 1, length - 1), part)]

    return [
        [
            sum(a * b * scores[:, v, u] for v, a in neighbours(y, height) for u, b in neighbours(x, width))
            for x in range(size)
        ]
        for y in range(size)
    ]

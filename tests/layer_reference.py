"""Terms that compare layers in plain loops, from rows of one text each and from the weights of BERT alone."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def hidden_and_relation(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    parts: nn.ModuleDict,
    rows: list[dict[str, Any]],
    pairs: list[tuple[int, int]],
    num_relation_heads: int,
) -> dict[str, Tensor]:
    """The mean over all tokens of HiddenStateTerm over `pairs`, and of RelationTerm over the last layers."""
    hidden: list[Tensor] = []
    relation: list[Tensor] = []
    for row in rows:
        ours = _layers(student, row)
        with torch.no_grad():
            theirs = _layers(teacher, row)
        for token in range(len(row["input_ids"])):
            distances = []
            for mine, yours in pairs:
                part = parts[f"hidden_{mine}_{yours}"]
                projected = part.weight @ ours[0][mine][token] + part.bias
                distances.append(sum((projected - theirs[0][yours][token]) ** 2) / len(projected))
            hidden.append(sum(distances) / len(distances))
            divergences = []
            for kind in (1, 2, 3):
                for head in range(num_relation_heads):
                    q = _related(ours[kind], token, head, num_relation_heads)
                    p = _related(theirs[kind], token, head, num_relation_heads)
                    divergences.append(sum(p_j * (p_j.log() - q_j.log()) for p_j, q_j in zip(p, q, strict=True)))
            relation.append(sum(divergences) / len(divergences))
    return {"hidden": sum(hidden) / len(hidden), "relation": sum(relation) / len(relation)}


def _layers(model: PreTrainedModel, row: dict[str, Any]) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """The hidden states of one row, and queries, keys and values of the last layer, all heads side by side."""
    outputs = model(input_ids=torch.tensor([row["input_ids"]]), output_hidden_states=True)
    states = [state[0] for state in outputs.hidden_states]
    attention = model.bert.encoder.layer[-1].attention.self
    made = [states[-2] @ linear.weight.T + linear.bias for linear in (attention.query, attention.key, attention.value)]
    return states, *made


def _related(vectors: Tensor, token: int, head: int, num_heads: int) -> Tensor:
    width = vectors.shape[1] // num_heads
    part = vectors[:, head * width : (head + 1) * width]
    powers = [torch.exp(torch.dot(part[token], other) / width**0.5) for other in part]
    return torch.stack([power / sum(powers) for power in powers])

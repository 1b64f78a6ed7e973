"""A student whose embeddings are narrower than its hidden states, for architectures that project one to the other."""

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hf_distill.students.rebuild import rebuilt, tensors_of


PROJECTIONS = {"electra": "embeddings_project", "albert": "encoder.embedding_hidden_mapping_in"}
"""For each model type with an `embedding_size`, the projection from the embeddings to the hidden states."""
TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")


def factorisation_faults(model: PreTrainedModel, embedding_size: int | None, hidden_size: int | None) -> list[str]:
    """What is impossible about narrower embeddings; empty if nothing is.

    Args:
        model: the teacher.
        embedding_size: of the student; None leaves it.
        hidden_size: of the student; None leaves it.
    """
    config: Any = model.config
    if embedding_size is None:
        return []
    if config.model_type not in PROJECTIONS:
        return [
            f"embedding_size={embedding_size} is asked for, but {type(model).__name__} has no projection from "
            f"embeddings to hidden states; these have one: {', '.join(PROJECTIONS)}"
        ]
    if model.get_output_embeddings() is not None:
        return [
            f"embedding_size={embedding_size} is asked for, but {type(model).__name__} writes tokens through its "
            "embeddings, and a layer before them cannot be narrowed exactly: take a model without language model head"
        ]
    old, hidden = config.embedding_size, config.hidden_size if hidden_size is None else hidden_size
    largest = hidden if old == config.hidden_size else old
    if not 2 <= embedding_size < largest or embedding_size == hidden:
        return [
            f"embedding_size={embedding_size}, but the teacher has {old} (and the student hidden_size={hidden}): take "
            f"2 to {largest - 1}, and not {hidden}"
        ]
    return []


def with_factorised_embeddings(model: PreTrainedModel, embedding_size: int) -> PreTrainedModel:
    """A model whose embeddings lie in their principal subspace, projected back by the layer behind them.

    With x the sum of the embeddings of a token, its place and its segment, x_c = x − mean(x), and the projection M:

        M · (g · x_c / √(|x_c|² / E + ε) + b) + m

    The E' − 1 directions B in which the centred tables are largest are kept. Q are as many orthonormal directions of
    the E' new units whose entries sum to 0, so that the new normalisation takes no mean away, and s = √(E' / E) keeps
    its denominator:

        x' = s · Q · Bᵀ · x_c,  M' = M · diag(g) · B · Qᵀ / s,  m' = M · b + m,  g' = 1,  b' = 0

    So nothing changes where the centred tables have rank E' − 1 or less, whatever ε is.

    Args:
        model: with an `embedding_size`, and no language model head.
        embedding_size: E', from 2 to E − 1.

    References:
        Lan et al.: ALBERT, 2020, https://arxiv.org/abs/1909.11942, section 3.1, for the factorisation. There it is
        trained from the start; the normalisation between the factors is taken account of here.
    """
    base = f"{model.base_model_prefix}." if model.base_model is not model else ""
    tensors = tensors_of(model)
    tables = [f"{base}embeddings.{name}.weight" for name in TABLES]
    gain, offset = (tensors[f"{base}embeddings.LayerNorm.{part}"].double() for part in ("weight", "bias"))
    centred = {name: tensors[name].double() - tensors[name].double().mean(1, keepdim=True) for name in tables}
    old_size = len(gain)
    second_moment = torch.stack([table.T @ table for table in centred.values()]).sum(0)
    directions = torch.linalg.eigh(second_moment).eigenvectors[:, old_size - embedding_size + 1 :]
    spread = directions @ _without_mean(embedding_size).to(directions).T  # B Qᵀ
    scale = (embedding_size / old_size) ** 0.5

    projection = f"{base}{PROJECTIONS[model.config.model_type]}"
    weight = tensors.get(f"{projection}.weight", torch.eye(old_size, device=gain.device)).double()
    bias = tensors.get(f"{projection}.bias", torch.zeros(old_size, device=gain.device)).double()
    changed = {name: scale * table @ spread for name, table in centred.items()}
    changed[f"{base}embeddings.LayerNorm.weight"] = torch.ones(embedding_size)
    changed[f"{base}embeddings.LayerNorm.bias"] = torch.zeros(embedding_size)
    changed[f"{projection}.weight"] = weight @ (gain[:, None] * spread) / scale
    changed[f"{projection}.bias"] = weight @ offset + bias
    config = copy.deepcopy(model.config)
    config.embedding_size = embedding_size
    return rebuilt(model, config, tensors | {name: value.to(model.dtype) for name, value in changed.items()})


def _without_mean(size: int) -> Tensor:
    """`(size, size − 1)`: orthonormal columns, each summing to 0.

    Example:

        >>> _without_mean(2).abs()
        tensor([[0.7071],
                [0.7071]], dtype=torch.float64)
    """
    with_mean = torch.cat([torch.ones(size, 1), torch.eye(size)[:, 1:]], 1).double()
    orthonormal: Tensor = torch.linalg.qr(with_mean).Q
    return orthonormal[:, 1:]

"""The completions of vLLM's server: what is asked of it, and whether its answer makes sense.

Another kind of server is another pair of these functions.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from hf_distill.errors import TeacherServerError


PATH = "completions"

NO_PROBABILITY = -9999.0
"""What vLLM writes for −∞, which JSON has not."""

_MAX_BYTES_PER_TOKEN, _MAX_OTHER_BYTES = 512, 2**16
"""Of one token with its log-probability, rank and string, and of all that is said besides."""

_ROUNDING = 1e-3
"""By how much probabilities may add up to more than 1."""


def request(model: str, prompt: Sequence[int] | str, top_k: int) -> dict[str, Any]:
    """What is asked about one row: how likely each token was after those before it, and which were likelier.

    A server adds no special token to a text, and none to token ids in any case. It has to make up one token more.
    """
    asked = {"model": model, "prompt": prompt, "max_tokens": 1, "prompt_logprobs": top_k}
    return {**asked, "add_special_tokens": False} if isinstance(prompt, str) else asked


def max_answer_bytes(num_tokens: int, top_k: int) -> int:
    """More than any right answer has."""
    return _MAX_OTHER_BYTES + num_tokens * (top_k + 1) * _MAX_BYTES_PER_TOKEN


def log_probabilities(
    answer: Any, tokens: Sequence[int], top_k: int, vocab_size: int, source: str
) -> tuple[Tensor, Tensor]:
    """How likely the server finds which tokens after each token but the last.

    Args:
        answer: of the server, decoded.
        tokens: the L that were asked about.
        top_k: how many are wanted of each position. The one that follows is among them, or is given besides.
        vocab_size: how many tokens there are.
        source: the server, for errors.

    Returns:
        Log-probabilities `(L − 1, top_k + 1)`, −∞ where there is no token more, and the tokens' ids.

    Raises:
        TeacherServerError: if the answer does not have what it must, or what it has is not possible.
    """
    positions = tokens_by_position(answer, source)
    if len(positions) != len(tokens):
        _refuse(source, f"{len(positions)} positions in `prompt_logprobs`, and {len(tokens)} tokens were sent")
    values, indices = [], []
    for number, (token, given) in enumerate(zip(tokens[1:], positions[1:], strict=True), start=1):
        ids, said = _position(given, f"position {number} of `prompt_logprobs`", vocab_size, source)
        if token not in ids:
            _refuse(source, f"position {number} of `prompt_logprobs` without the token {token} that stands there")
        if not top_k <= len(ids) <= top_k + 1:
            _refuse(
                source,
                f"position {number} of `prompt_logprobs` with {len(ids)} tokens, and {top_k} were asked for beside "
                "the one that stands there",
                "Pass the `top_k=` that the server allows (vLLM: `--max-logprobs`)",
            )
        padding = top_k + 1 - len(ids)
        values.append(said + [-math.inf] * padding)
        indices.append(ids + ids[:1] * padding)
    known = torch.tensor(values, dtype=torch.float64).reshape(-1, top_k + 1)
    _check_sums(known, top_k, vocab_size, source)
    return known, torch.tensor(indices, dtype=torch.int64).reshape(-1, top_k + 1)


def tokens_by_position(answer: Any, source: str) -> list[Any]:
    """What the server says of each token of its prompt; None of the first.

    Raises:
        TeacherServerError: if it says nothing of them.
    """
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], Mapping):
        found = f"a list of {len(choices)}" if isinstance(choices, list) else f"{type(choices).__name__}"
        _refuse(source, f"`choices` that are {found}, and one choice was asked for")
    positions = choices[0].get("prompt_logprobs")
    if not isinstance(positions, list) or not positions or positions[0] is not None:
        found = f"a list of {len(positions)}" if isinstance(positions, list) else f"{type(positions).__name__}"
        _refuse(source, f"`prompt_logprobs` that are {found}, and a list that begins with null was asked for")
    return positions


def _position(given: Any, where: str, vocab_size: int, source: str) -> tuple[list[int], list[float]]:
    """Ids and log-probabilities."""
    if not isinstance(given, Mapping):
        _refuse(source, f"{where} as {type(given).__name__}, and an object was asked for")
    ids, said = [], []
    for name, entry in given.items():
        value = entry.get("logprob") if isinstance(entry, Mapping) else None
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            _refuse(source, f"{where} with the log-probability {value!r} of token {name[:20]!r}")
        if not value <= _ROUNDING:  # also where it is NaN
            _refuse(
                source, f"{where} with the log-probability {value!r} of token {name[:20]!r}, which must be 0 at most"
            )
        number = int(name) if name.isascii() and name.isdecimal() and len(name) < 19 else -1
        if not 0 <= number < vocab_size:
            _refuse(
                source,
                f"{where} with the token {name[:20]!r}, and token ids are numbers below {vocab_size}",
                "Pass the teacher's own `vocab_size=`, if it is larger than the student's",
            )
        ids.append(number)
        said.append(-math.inf if value <= NO_PROBABILITY else min(float(value), 0.0))
    if len(set(ids)) != len(ids):
        _refuse(source, f"{where} with {len(ids) - len(set(ids))} tokens twice")
    return ids, said


def _check_sums(known: Tensor, top_k: int, vocab_size: int, source: str) -> None:
    """Probabilities add up to 1 at most, and the others are no likelier than the last of the likeliest."""
    likeliest = known.exp().topk(top_k, dim=-1).values
    mass, rest = known.exp().sum(-1), 1 - likeliest.sum(-1)
    most = likeliest[:, -1] * (vocab_size - top_k)
    for position in (mass > 1 + _ROUNDING).nonzero().flatten()[:1].tolist():
        _refuse(
            source,
            f"probabilities that add up to {mass[position]:.6g} at position {position + 1}",
            "Start the server so that it gives log-probabilities (vLLM: `--logprobs-mode raw_logprobs`)",
        )
    for position in (rest > most + _ROUNDING).nonzero().flatten()[:1].tolist():
        _refuse(
            source,
            f"{top_k} tokens that leave {rest[position]:.6g} at position {position + 1}, and the {vocab_size - top_k} "
            f"others, none likelier than the last of these, make {most[position]:.6g} at most",
            "Start the server so that it gives log-probabilities, and pass the teacher's own `vocab_size=`",
        )


def _refuse(source: str, what: str, remedy: str = "") -> NoReturn:
    remedy = remedy or "Ask a server that answers as vLLM's completions do"
    raise TeacherServerError(f"the answer of the teacher's server {source} makes no sense: {what}. {remedy}.")

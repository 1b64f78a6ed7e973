"""A student that knows the tokens of a corpus alone."""

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_distill.errors import ConfigurationError
from hf_distill.students.configurations import sub_configs
from hf_distill.students.rebuild import empty_model, rebuilt, tensors_of
from hf_distill.students.smaller_tokenizer import needed_tokens, smaller_tokenizer, tokenizer_faults


Vocabulary = Iterable[str | int | Sequence[int]]

_NEEDED_IDS = re.compile("_token_(ids?|index)$")
"""Fields of a configuration, or of one for generation, with token ids that the model cannot do without."""
_OTHER_IDS = re.compile("_tokens$|_to_id$|^bad_words_ids$")
"""Fields with token ids that mean nothing once the token is gone."""
_VOCABULARY_SIZES = ("vocab_size", "decoder_vocab_size")


def vocabulary_faults(
    model: PreTrainedModel, vocabulary: Vocabulary | None, tokenizer: PreTrainedTokenizerBase | None
) -> list[str]:
    """What is impossible about a smaller vocabulary; empty if nothing is."""
    if (vocabulary is None) != (tokenizer is None):
        given, missing = (
            ("processing_class", "vocabulary") if vocabulary is None else ("vocabulary", "processing_class")
        )
        return [f"{given}= is given without {missing}=: the tokenizer becomes smaller together with the vocabulary"]
    if tokenizer is None:
        return []
    faults = tokenizer_faults(tokenizer)
    if isinstance(vocabulary, str):
        faults.append(f"vocabulary= is one text ({vocabulary[:20]!r} …): pass a list of texts or of token ids")
    sizes = {size for _, node in sub_configs(model.config) for size in _sizes_in(node).values()}
    if len(sizes) > 1:
        faults.append(
            f"vocabulary= is given, but {type(model).__name__} has vocabularies of {sorted(sizes)} tokens, and one "
            "tokenizer cannot serve them"
        )
    if vocab_size_of(model.config) is None:
        faults.append(f"vocabulary= is given, but {type(model).__name__} has no vocab_size")
    return faults


def with_vocabulary_of(
    model: PreTrainedModel, vocabulary: Vocabulary, tokenizer: PreTrainedTokenizerBase
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model and a tokenizer with the tokens that a corpus needs, numbered from 0 in their order.

    Args:
        model: the teacher, or a student that has its vocabulary.
        vocabulary: texts, token ids, or rows of token ids.
        tokenizer: the teacher's.

    Raises:
        ConfigurationError: if a token has no row in the model.
    """
    old_size = vocab_size_of(model.config)
    needed = needed_tokens(tokenizer, vocabulary) | _ids_in_configs(model)
    outside = sorted(token_id for token_id in needed if not 0 <= token_id < (old_size or 0))
    if outside:
        raise ConfigurationError(
            f"vocabulary= needs the token ids {outside[:5]}, but the teacher has vocab_size {old_size}. Pass the "
            "teacher's own tokenizer as `processing_class=`, and ids made by it."
        )
    kept = sorted(needed)
    return with_tokens(model, kept), smaller_tokenizer(tokenizer, kept)


def with_tokens(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedModel:
    """A model with some rows of its vocabulary, every token id in its configurations renumbered.

    Which axes of which tensors count tokens is found by comparing shapes with a model that is built without weights.

    Args:
        model: any with a vocabulary.
        kept: token ids, ascending.
    """
    old_size = vocab_size_of(model.config)
    new_ids = {old: new for new, old in enumerate(kept)}
    config = copy.deepcopy(model.config)
    for _, node in sub_configs(config):
        _renumber(node, new_ids)
        for name in _sizes_in(node):
            setattr(node, name, len(kept))
    smaller = tensors_of(empty_model(model, config, device="meta"))
    tensors = {}
    for name, tensor in tensors_of(model).items():
        for axis, size in enumerate(tensor.shape):
            if size == old_size and name in smaller and smaller[name].shape[axis] == len(kept):
                tensor = tensor.index_select(axis, torch.tensor(kept, device=tensor.device))
        tensors[name] = tensor
    student = rebuilt(model, config, tensors)
    if student.can_generate():
        _renumber(student.generation_config, new_ids)
    return student


def vocab_size_of(config: Any) -> int | None:
    """The number of tokens of the model that a configuration is of; None if it reads no tokens."""
    return getattr(config.get_text_config(decoder=True), "vocab_size", None)


def _sizes_in(config: Any) -> dict[str, int]:
    return {name: size for name in _VOCABULARY_SIZES if (size := getattr(config, name, None)) is not None}


def _ids_in_configs(model: PreTrainedModel) -> set[int]:
    """The token ids that the configurations name and the vocabulary has."""
    size = vocab_size_of(model.config) or 0
    nodes = [node for _, node in sub_configs(model.config)]
    nodes += [model.generation_config] if model.can_generate() else []
    found: set[int] = set()
    for node in nodes:
        for name, value in vars(node).items():
            if _NEEDED_IDS.search(name):
                found.update(value if isinstance(value, (list, tuple)) else [value])
    return {token_id for token_id in found if isinstance(token_id, int) and 0 <= token_id < size}


def _renumber(node: Any, new_ids: Mapping[int, int]) -> None:
    for name, value in vars(node).items():
        if value is not None and (_NEEDED_IDS.search(name) or _OTHER_IDS.search(name)):
            setattr(node, name, _renumbered(value, new_ids))
        elif value is not None and name == "forced_decoder_ids":
            node.forced_decoder_ids = [[place, new_ids.get(old)] for place, old in value]


def _renumbered(value: Any, new_ids: Mapping[int, int]) -> Any:
    """The new ids, without what has none; a sequence of tokens of which one is gone goes too."""
    if isinstance(value, Mapping):
        return {name: new_ids[old] for name, old in value.items() if old in new_ids}
    if isinstance(value, (list, tuple)):
        rows = [entry for entry in value if isinstance(entry, (list, tuple))]
        if rows:
            return [[new_ids[old] for old in row] for row in rows if new_ids.keys() >= set(row)]
        return [new_ids[old] for old in value if old in new_ids]
    return new_ids.get(value)

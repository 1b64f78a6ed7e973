"""A tokenizer with some of its tokens, which splits the texts that these were taken from as it did before."""

import copy
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerBase

from hf_distill.errors import UnsupportedModelError


TEXTS_AT_ONCE = 1000


def needed_tokens(tokenizer: PreTrainedTokenizerBase, corpus: Iterable[str | int | Sequence[int]]) -> set[int]:
    """The ids of all tokens that a corpus needs, special and added tokens included.

    Besides the tokens of the corpus itself these are

    - of byte-pair encoding, what each of them is merged from, and all single bytes where it knows bytes;
    - of WordPiece, what it finds in a word before it gives up, so that it gives up again;
    - of a unigram model, the least likely token, which says how unlikely an unknown character is;
    - of both, the characters that the tokens consist of, so that another word of these characters can be spelt.

    Args:
        tokenizer: one with a backend of the library `tokenizers`.
        corpus: texts, token ids, or rows of token ids.
    """
    spec = _spec(tokenizer)
    needed = {*tokenizer.added_tokens_decoder, *tokenizer.all_special_ids, *tokenizer("")["input_ids"]}
    needed.add(_tokens(spec["model"]).get(spec["model"].get("unk_token")))
    entries = iter(corpus)
    while chunk := list(islice(entries, TEXTS_AT_ONCE)):
        texts = [entry for entry in chunk if isinstance(entry, str)]
        needed.update(entry for entry in chunk if isinstance(entry, int))
        for row in [*(entry for entry in chunk if not isinstance(entry, (str, int))), *_encoded(tokenizer, texts)]:
            needed.update(map(int, row))
        if spec["model"]["type"] == "WordPiece":
            needed |= _found_before_giving_up(tokenizer, spec["model"], texts)
    needed.discard(None)  # of a special token that is none of the vocabulary
    if spec["model"]["type"] == "BPE":
        needed |= _merged_from(spec, needed) | _bytes(spec)
    if spec["model"]["type"] == "Unigram":
        scores = [score for _, score in spec["model"]["vocab"]]
        needed |= {scores.index(min(scores)), spec["model"]["unk_id"] or 0}
    if spec["model"]["type"] in ("WordPiece", "Unigram"):
        needed |= _characters(spec["model"], needed)
    return needed


def smaller_tokenizer(tokenizer: PreTrainedTokenizerBase, kept: Sequence[int]) -> PreTrainedTokenizerBase:
    """A tokenizer with some of the tokens of another, numbered from 0 in their order.

    Args:
        tokenizer: the other, which stays as it is.
        kept: ids, ascending.

    Raises:
        UnsupportedModelError: if the tokenizer is not the same after being saved and loaded.
    """
    spec = _spec(tokenizer)
    new_ids = {old: new for new, old in enumerate(kept)}
    model, vocabulary = spec["model"], spec["model"]["vocab"]
    if model["type"] == "Unigram":
        model["vocab"] = [vocabulary[old] for old in kept if old < len(vocabulary)]
        model["unk_id"] = new_ids.get(model["unk_id"])
    else:
        model["vocab"] = {token: new_ids[old] for token, old in vocabulary.items() if old in new_ids}
    if model["type"] == "BPE":
        model["merges"] = [
            [left, right] for left, right in model["merges"] if model["vocab"].keys() >= {left, right, left + right}
        ]
    for token in spec["added_tokens"]:
        token["id"] = new_ids[token["id"]]
    _renumber_processor(spec["post_processor"], new_ids)
    if spec["padding"] is not None:
        spec["padding"]["pad_id"] = new_ids[spec["padding"]["pad_id"]]
    smaller: Any = copy.deepcopy(tokenizer)
    smaller._tokenizer = Tokenizer.from_str(json.dumps(spec))
    with tempfile.TemporaryDirectory() as folder:  # so that it is what every later user of its files gets
        smaller.save_pretrained(folder)
        loaded: PreTrainedTokenizerBase = type(tokenizer).from_pretrained(folder)
    loaded.name_or_path = loaded.init_kwargs["name_or_path"] = ""
    expected = {token: new_ids[old] for token, old in tokenizer.get_vocab().items() if old in new_ids}
    if loaded.get_vocab() != expected:
        raise UnsupportedModelError(
            f"{type(tokenizer).__name__} numbers its tokens otherwise once it is saved and loaded, {len(expected)} of "
            f"{len(tokenizer)} tokens being kept, so their ids would not fit the model. Added tokens that are "
            "numbered before others, or ids that stand for no token, are a common reason: build the tokenizer with a "
            "token for every id, added ones last."
        )
    return loaded


def tokenizer_faults(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Why a tokenizer cannot be made smaller; empty if it can."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return [f"processing_class= is a {type(tokenizer).__name__} without a backend of the library `tokenizers`"]
    model = _spec(tokenizer)["model"]
    if model["type"] == "BPE" and model.get("continuing_subword_prefix"):
        prefix = model["continuing_subword_prefix"]
        return [
            f"processing_class= marks the inside of words with {prefix!r}, which is not known for byte-pair encoding"
        ]
    return []


def _spec(tokenizer: Any) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return spec


def _encoded(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    rows: list[list[int]] = tokenizer(texts, verbose=False)["input_ids"] if texts else []
    return rows


def _found_before_giving_up(tokenizer: Any, model: Mapping[str, Any], texts: Iterable[str]) -> set[int]:
    backend, found = tokenizer.backend_tokenizer, set()
    for text in texts:
        normalized = backend.normalizer.normalize_str(text) if backend.normalizer else text
        words = backend.pre_tokenizer.pre_tokenize_str(normalized) if backend.pre_tokenizer else [(normalized, None)]
        for word, _ in words:
            if [token.value for token in backend.model.tokenize(word)] == [model["unk_token"]]:
                found |= set(_longest_matches(word, model))
    return found


def _longest_matches(word: str, model: Mapping[str, Any]) -> Iterator[int]:
    start = 0
    while start < len(word):
        prefix = model["continuing_subword_prefix"] if start else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if prefix + word[start:end] in model["vocab"]), None)
        if end is None:
            return
        yield model["vocab"][prefix + word[start:end]]
        start = end


def _characters(model: Mapping[str, Any], ids: set[int]) -> set[int]:
    tokens = _tokens(model)
    characters = set("".join(token for token, token_id in tokens.items() if token_id in ids))
    inside = model.get("continuing_subword_prefix") or ""
    return {tokens[token] for one in characters for token in (one, inside + one) if token in tokens}


def _tokens(model: Mapping[str, Any]) -> dict[str, int]:
    vocabulary = model["vocab"]
    return (
        vocabulary if isinstance(vocabulary, dict) else {token: index for index, (token, _) in enumerate(vocabulary)}
    )


def _merged_from(spec: Mapping[str, Any], ids: set[int]) -> set[int]:
    """The ids of all that byte-pair encoding holds on its way to some tokens."""
    model = spec["model"]
    ranks = {(left, right): rank for rank, (left, right) in enumerate(model["merges"])}
    suffix = model.get("end_of_word_suffix") or ""
    found: set[str] = set()
    for token in [token for token, token_id in model["vocab"].items() if token_id in ids]:
        ends = bool(suffix) and token.endswith(suffix) and token != suffix
        parts = list(token.removesuffix(suffix) if ends else token)
        if ends:
            parts[-1] += suffix
        found.update(parts)
        while pairs := [pair for pair in pairwise(parts) if pair in ranks]:
            best = min(pairs, key=ranks.__getitem__)
            place = next(place for place in range(len(parts)) if (parts[place], parts[place + 1]) == best)
            parts[place : place + 2] = ["".join(best)]
            found.add(parts[place])
    return {model["vocab"][token] for token in found if token in model["vocab"]}


def _bytes(spec: Mapping[str, Any]) -> set[int]:
    model, suffix = spec["model"], spec["model"].get("end_of_word_suffix") or ""
    tokens = [f"<0x{byte:02X}>" for byte in range(256)] if model.get("byte_fallback") else []
    if '"ByteLevel"' in json.dumps([spec["pre_tokenizer"], spec["decoder"]]):
        tokens += [byte + end for byte in ByteLevel.alphabet() for end in ("", suffix)]
    return {model["vocab"][token] for token in tokens if token in model["vocab"]}


def _renumber_processor(processor: dict[str, Any] | None, new_ids: Mapping[int, int]) -> None:
    if processor is None:
        return
    for inner in processor.get("processors", ()):
        _renumber_processor(inner, new_ids)
    for end in ("sep", "cls"):
        if end in processor:
            token, old = processor[end]
            processor[end] = [token, new_ids[old]]
    special = processor.get("special_tokens")
    for token in special.values() if special else ():
        token["ids"] = [new_ids[old] for old in token["ids"]]

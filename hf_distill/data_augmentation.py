"""More text for a student to learn from, where a task has little."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_distill.errors import ConfigurationError


class MaskedWordAugmentation:
    """Rows with some words replaced by others that a masked language model finds likely in their place.

    To be given to `datasets.Dataset.map`, batched. Each row is followed by `num_samples` variants of it, whose other
    columns are the row's own: its labels too, which is why a teacher should have the last word on them (`alpha=0`).

    For each word of letters, independently, with `replace_probability`: one that is one token gives way to one of the
    `num_candidates` most likely words that are one token, drawn evenly; any other one to one of `similar_words`.
    What is likely is asked once for each word of the original row. Draws depend on the seed and the row's text alone,
    so processes and batches change nothing, and the map can be cached by its arguments.

    Args:
        model: a masked language model. It is put in eval mode.
        tokenizer: its tokenizer, a fast one.
        column: the column of text. Words are what blanks separate.
        num_samples: variants of each row, N_a.
        replace_probability: p_t.
        num_candidates: K.
        similar_words: gives words like a word that is several tokens, such as its neighbours in word vectors. Without
            it those words stay.
        seed: of the draws.
        batch_size: rows with a masked word that the model sees at once.

    Raises:
        ConfigurationError: if a number is out of its range, or the tokenizer has no mask token or is not a fast one.

    References:
        Jiao et al.: TinyBERT: Distilling BERT for Natural Language Understanding, 2020,
        https://arxiv.org/abs/1909.10351, algorithm 1 (with N_a = 20, p_t = 0.4, K = 15, and GloVe for similar words).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        column: str,
        *,
        num_samples: int = 20,
        replace_probability: float = 0.4,
        num_candidates: int = 15,
        similar_words: Callable[[str], Sequence[str]] | None = None,
        seed: int = 0,
        batch_size: int = 64,
    ) -> None:
        faults = [
            f"{name} must be at least 1, got {value!r}"
            for name, value in {
                "num_samples": num_samples,
                "num_candidates": num_candidates,
                "batch_size": batch_size,
            }.items()
            if value < 1
        ]
        if not 0 <= replace_probability <= 1:
            faults.append(f"replace_probability must lie between 0 and 1, got {replace_probability!r}")
        if tokenizer.mask_token_id is None or not tokenizer.is_fast:
            faults.append(
                f"`tokenizer` is a {type(tokenizer).__name__} with mask_token={tokenizer.mask_token!r}; pass the fast "
                "tokenizer of a masked language model"
            )
        if faults:
            raise ConfigurationError("; ".join(faults) + ".")
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.column = column
        self.num_samples = num_samples
        self.replace_probability = replace_probability
        self.num_candidates = num_candidates
        self.similar_words = similar_words
        self.seed = seed
        self.batch_size = batch_size

    def __call__(self, rows: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """All columns of the rows, each row followed by its variants.

        Raises:
            ConfigurationError: if the rows lack the column of text.
        """
        if self.column not in rows:
            raise ConfigurationError(f"`column` is {self.column!r}, and the rows have {sorted(rows)}.")
        augmented: dict[str, list[Any]] = {name: [] for name in rows}
        for index, text in enumerate(rows[self.column]):
            for name, values in rows.items():
                own = self.variants(text) if name == self.column else [values[index]] * self.num_samples
                augmented[name] += [values[index], *own]
        return augmented

    def variants(self, text: str) -> list[str]:
        """`num_samples` texts in place of this one."""
        words = text.split()
        candidates = self._candidates(words)
        key = hashlib.sha256(f"{self.seed}\0{text}".encode()).digest()
        generator = np.random.default_rng(list(key))
        return [
            " ".join(
                choices[int(generator.integers(len(choices)))]
                if choices and generator.random() < self.replace_probability
                else word
                for word, choices in zip(words, candidates, strict=True)
            )
            for _ in range(self.num_samples)
        ]

    def _candidates(self, words: list[str]) -> list[Sequence[str]]:
        """For each word, what may stand in its place."""
        if not words:
            return []
        encoded = self.tokenizer(words, is_split_into_words=True, truncation=True, return_tensors="pt")
        places: dict[int, list[int]] = {}
        for position, word in enumerate(encoded.word_ids()):
            if word is not None:
                places.setdefault(word, []).append(position)
        known = encoded["input_ids"][0] != self.tokenizer.unk_token_id
        places = {index: own for index, own in places.items() if words[index].isalpha()}
        single = {word: own[0] for word, own in places.items() if len(own) == 1 and known[own[0]]}
        likely = dict(zip(single, self._likely_words(encoded, list(single.values())), strict=True))
        similar = self.similar_words or (lambda word: ())
        return [
            likely[index] if index in likely else (similar(word) if index in places else ())
            for index, word in enumerate(words)
        ]

    def _likely_words(self, encoded: Mapping[str, Any], positions: list[int]) -> list[list[str]]:
        """The likeliest whole words at each of these positions, each masked in turn."""
        found = []
        for start in range(0, len(positions), self.batch_size):
            masked = torch.tensor(positions[start : start + self.batch_size])
            rows = torch.arange(len(masked))
            inputs = {name: value.repeat(len(masked), 1) for name, value in encoded.items()}
            inputs["input_ids"][rows, masked] = self.tokenizer.mask_token_id
            with torch.inference_mode():
                logits = self.model(**{name: value.to(self.model.device) for name, value in inputs.items()}).logits
            ranked = logits[rows, masked].argsort(dim=-1, descending=True).tolist()
            found += [self._first_words(ids) for ids in ranked]
        return found

    def _first_words(self, ids: list[int]) -> list[str]:
        words: list[str] = []
        for index in ids:
            word = whole_word(self.tokenizer, index)
            if word is not None:
                words.append(word)
            if len(words) == self.num_candidates:
                break
        return words


@cache
def whole_word(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str | None:
    """The word that a token stands for by itself; None for special tokens, punctuation and pieces of words."""
    if token_id in tokenizer.all_special_ids:
        return None
    word = str(tokenizer.decode([token_id])).strip()
    if not word.isalnum():
        return None
    ids = tokenizer([word], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    return word if ids == [token_id] else None

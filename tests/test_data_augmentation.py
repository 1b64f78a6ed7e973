"""Words replaced by what a masked language model finds likely."""

from itertools import pairwise

import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, BertForMaskedLM

from hf_distill import MaskedWordAugmentation
from hf_distill.data_augmentation import whole_word
from hf_distill.errors import ConfigurationError
from tests.tiny_models import BLOCK_SIZES, word_tokenizer
from tests.two_tokenizers import SENTENCES, byte_pair_tokenizer, wordpiece_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = wordpiece_tokenizer()
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    return tokenizer


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    return BertForMaskedLM(
        BertConfig(**BLOCK_SIZES, vocab_size=len(tokenizer), num_hidden_layers=1, initializer_range=1.0)
    )


def single_token_words(tokenizer, text):
    return [word for word in text.split() if len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1]


def test_each_row_is_followed_by_its_variants(model, tokenizer):
    rows = Dataset.from_dict({"sentence": list(SENTENCES), "label": [3, 1, 4, 1]})
    augment = MaskedWordAugmentation(model, tokenizer, "sentence", num_samples=5)
    augmented = rows.map(augment, batched=True, batch_size=3)
    assert len(augmented) == 4 * 6
    assert augmented["label"] == [label for label in rows["label"] for _ in range(6)]
    assert augmented["sentence"][::6] == list(SENTENCES)
    variants = zip(augmented["sentence"][::6], augmented["sentence"][1::6], strict=True)
    assert all(len(own.split()) == len(text.split()) for text, own in variants)
    assert augmented.to_list() == rows.map(augment, batched=True, batch_size=1).to_list()


def test_candidates_are_the_likeliest_words_of_the_masked_row(model, tokenizer):
    """By hand: mask one word, rank the vocabulary, keep what is a word by itself."""
    text, number = "the cat sat on the mat", 3
    options = {"num_candidates": number, "replace_probability": 1.0, "num_samples": 200}
    augment = MaskedWordAugmentation(model, tokenizer, "text", **options)
    variants = [variant.split() for variant in augment.variants(text)]
    words = text.split()
    for place, word in enumerate(words):
        if word not in single_token_words(tokenizer, text):
            assert {variant[place] for variant in variants} == {word}
            continue
        ids = tokenizer(" ".join([*words[:place], "[MASK]", *words[place + 1 :]]), return_tensors="pt")
        (position,) = (ids["input_ids"][0] == tokenizer.mask_token_id).nonzero()[0].tolist()
        scores = model(**ids).logits[0, position]
        names = tokenizer.convert_ids_to_tokens(scores.argsort(descending=True).tolist())
        expected = [name for name in names if name.isalnum()][:number]
        assert {variant[place] for variant in variants} == set(expected)
    assert single_token_words(tokenizer, text)


def test_the_share_of_words_that_are_replaced(model, tokenizer):
    text = " ".join(single_token_words(tokenizer, " ".join(SENTENCES).lower()) * 3)
    options = {"num_samples": 200, "num_candidates": 1}
    candidates = MaskedWordAugmentation(model, tokenizer, "text", replace_probability=1.0, **options).variants(text)[0]
    other = [word != new for word, new in zip(text.split(), candidates.split(), strict=True)]
    variants = MaskedWordAugmentation(model, tokenizer, "text", replace_probability=0.3, **options).variants(text)
    changed = [[word != new for word, new in zip(text.split(), own.split(), strict=True)] for own in variants]
    assert sum(map(sum, changed)) / (200 * sum(other)) == pytest.approx(0.3, abs=0.03)
    assert MaskedWordAugmentation(model, tokenizer, "text", replace_probability=0.0).variants(text) == [text] * 20


def test_words_of_several_tokens_have_similar_words(model, tokenizer):
    text = "cat sleepsred"
    options = {"replace_probability": 1.0, "num_samples": 50}
    stay = MaskedWordAugmentation(model, tokenizer, "text", **options).variants(text)
    assert {variant.split()[1] for variant in stay} == {"sleepsred"}
    asked = MaskedWordAugmentation(
        model, tokenizer, "text", similar_words=lambda word: [f"{word}-1", f"{word}-2"], **options
    ).variants(text)
    assert len(tokenizer.tokenize("sleepsred")) > 1 and tokenizer.tokenize("Ω") == ["[UNK]"]
    unknown = MaskedWordAugmentation(model, tokenizer, "text", **options).variants("cat Ω")
    assert {variant.split()[1] for variant in unknown} == {"Ω"}
    assert {variant.split()[1] for variant in asked} == {"sleepsred-1", "sleepsred-2"}


def test_punctuation_and_numbers_stay(model):
    """As in the authors' code, where only words of letters are replaced."""
    signs = word_tokenizer("[UNK]", "cat", "dog", ",", "7", ".")
    signs.add_special_tokens({"mask_token": "[MASK]", "unk_token": "[UNK]"})
    options = {"replace_probability": 1.0, "num_samples": 50, "similar_words": lambda word: ["other"]}
    variants = MaskedWordAugmentation(model, signs, "text", **options).variants("cat , 7 cat .")
    assert {tuple(variant.split()[place] for place in (1, 2, 4)) for variant in variants} == {(",", "7", ".")}
    assert {variant.split()[0] for variant in variants} >= {"cat", "dog"}


def test_draws_depend_on_the_seed_and_the_text_alone(model, tokenizer):
    first, again, other = (
        MaskedWordAugmentation(model, tokenizer, "text", seed=seed).variants(SENTENCES[0]) for seed in (0, 0, 1)
    )
    assert first == again != other
    assert any(one != two for one, two in pairwise(first))


def test_whole_words_of_byte_pairs():
    tokenizer = byte_pair_tokenizer()
    words = {word for index in range(len(tokenizer)) if (word := whole_word(tokenizer, index)) is not None}
    for word in words:
        assert len(tokenizer([word], is_split_into_words=True, add_special_tokens=False)["input_ids"]) == 1
    assert "cat" in words and not words & set(tokenizer.all_special_tokens)


def test_an_empty_text(model, tokenizer):
    assert MaskedWordAugmentation(model, tokenizer, "text", num_samples=2).variants("") == ["", ""]


def test_what_is_refused(model, tokenizer):
    with pytest.raises(ConfigurationError, match=r"num_samples must be at least 1, got 0; .* got 2"):
        MaskedWordAugmentation(model, tokenizer, "text", num_samples=0, replace_probability=2)
    with pytest.raises(ConfigurationError, match="mask_token=None"):
        MaskedWordAugmentation(model, word_tokenizer("a"), "text")
    with pytest.raises(ConfigurationError, match=r"`column` is 'text', and the rows have \['label'\]"):
        MaskedWordAugmentation(model, tokenizer, "text")({"label": [1]})

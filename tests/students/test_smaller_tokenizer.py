"""A smaller tokenizer splits its corpus as the whole one, also after it was saved."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from hf_distill.errors import UnsupportedModelError
from hf_distill.students.smaller_tokenizer import needed_tokens, smaller_tokenizer, tokenizer_faults
from tests.students.tokenizers_of_text import TEXTS, TOKENIZERS, ambiguous_bpe


CORPUS = [TEXTS[1], "zürich €5 naïve 学 [MASK] <extra_id_3> <|endoftext|>", "queens qqq xyzzy ## citizenship", ""]


@pytest.fixture(params=TOKENIZERS, scope="module")
def tokenizer(request):
    return TOKENIZERS[request.param]()


def test_the_corpus_is_split_as_before(tokenizer, tmp_path):
    kept = sorted(needed_tokens(tokenizer, CORPUS))
    smaller = smaller_tokenizer(tokenizer, kept)
    assert len(smaller) == len(kept) < len(tokenizer)
    smaller.save_pretrained(tmp_path)
    for made in (smaller, AutoTokenizer.from_pretrained(tmp_path)):
        for text in CORPUS:
            ids, whole = made(text)["input_ids"], tokenizer(text)["input_ids"]
            assert [kept[token_id] for token_id in ids] == whole
            assert made.convert_ids_to_tokens(ids) == tokenizer.convert_ids_to_tokens(whole)
            assert made.decode(ids) == tokenizer.decode(whole)


def test_special_and_added_tokens_stay(tokenizer):
    smaller = smaller_tokenizer(tokenizer, sorted(needed_tokens(tokenizer, [])))
    assert smaller.all_special_tokens == tokenizer.all_special_tokens
    assert smaller.get_added_vocab().keys() == tokenizer.get_added_vocab().keys()
    assert smaller(CORPUS[0], TEXTS[0])["input_ids"]  # a pair, with a processor of its own


def test_the_whole_tokenizer_stays_as_it_was(tokenizer):
    before = tokenizer.backend_tokenizer.to_str()
    smaller_tokenizer(tokenizer, sorted(needed_tokens(tokenizer, CORPUS)))
    assert tokenizer.backend_tokenizer.to_str() == before


def test_ids_and_rows_of_ids_are_texts_too():
    tokenizer = TOKENIZERS["WordPiece"]()
    rows = [tokenizer(text)["input_ids"] for text in CORPUS]
    of_rows = needed_tokens(tokenizer, rows)
    assert of_rows == needed_tokens(tokenizer, (token_id for row in rows for token_id in row))
    assert of_rows <= needed_tokens(tokenizer, iter(CORPUS))


@pytest.mark.parametrize("name", ["byte-level BPE", "BPE with word ends", "BPE that falls back to bytes"])
def test_what_knows_bytes_still_reads_everything(name):
    tokenizer = TOKENIZERS[name]()
    smaller = smaller_tokenizer(tokenizer, sorted(needed_tokens(tokenizer, ["speak"])))
    text = "quite unseen: ψ"
    assert smaller.decode(smaller(text)["input_ids"]) == tokenizer.decode(tokenizer(text)["input_ids"])


def test_other_words_of_the_same_characters_can_be_spelt():
    for name in ("WordPiece", "unigram"):
        tokenizer = TOKENIZERS[name]()
        smaller = smaller_tokenizer(tokenizer, sorted(needed_tokens(tokenizer, ["speak the verdict"])))
        assert smaller.unk_token_id not in smaller("trek dip the ace")["input_ids"]


def test_a_word_that_wordpiece_gave_up_on_stays_unknown():
    """Without `ab`, the greedy search would find `a` and `##bc`."""
    tokens = ["[UNK]", "a", "##bc", "ab", "##b", "##c x"]
    backend = Tokenizer(models.WordPiece({token: index for index, token in enumerate(tokens)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    corpus = ["abc", "a"]
    assert tokenizer(corpus[0])["input_ids"] == [0]
    kept = sorted(needed_tokens(tokenizer, [*corpus, 2]))
    smaller = smaller_tokenizer(tokenizer, kept)
    assert [[kept[token_id] for token_id in smaller(text)["input_ids"]] for text in corpus] == [[0], [1]]


@pytest.mark.parametrize(
    ("text", "way"),
    [("abcd", {"bc", "abc"}), ("abc", {"bc"}), ("ab cd", set())],
)
def test_what_a_token_is_merged_from_stays(text, way):
    """`b c` comes first, so `abcd` is made of `abc` and `d`, and never of `ab` and `cd`."""
    tokenizer = ambiguous_bpe()
    kept = sorted(needed_tokens(tokenizer, [text]))
    smaller = smaller_tokenizer(tokenizer, kept)
    assert set(smaller.get_vocab()) == {"<unk>", *text.replace(" ", ""), *text.split(), *way}
    assert smaller.tokenize(text) == tokenizer.tokenize(text) == text.split()


def test_the_least_likely_piece_keeps_the_price_of_the_unknown():
    """The unknown costs 10 more than the least likely piece: -40 with `z`, but -16 without, and then it would win."""
    pieces = [("<unk>", 0.0), ("ab", -6.0), ("cd", -6.0), ("ef", -6.0), ("bcdef", -0.1), ("z", -30.0)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    assert tokenizer.tokenize("abcdef") == ["ab", "cd", "ef"]
    kept = sorted(needed_tokens(tokenizer, ["abcdef", "bcdef"]))
    assert smaller_tokenizer(tokenizer, kept).tokenize("abcdef") == ["ab", "cd", "ef"]
    without = smaller_tokenizer(tokenizer, [token_id for token_id in kept if token_id != 5])
    assert "bcdef" in without.tokenize("abcdef")


def test_a_tokenizer_that_would_number_otherwise_is_refused():
    """The library numbers added tokens from the number of the others on."""
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 7}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    tokenizer.add_tokens(["<x>"])
    assert tokenizer.get_vocab()["<x>"] == 3
    with pytest.raises(UnsupportedModelError, match=r"numbers its tokens otherwise .* 4 of 4 tokens being kept"):
        smaller_tokenizer(tokenizer, [0, 1, 3, 7])


def test_which_tokenizers_cannot_become_smaller():
    assert tokenizer_faults(TOKENIZERS["unigram"]()) == []
    assert tokenizer_faults(ByT5Tokenizer()) == [
        "processing_class= is a ByT5Tokenizer without a backend of the library `tokenizers`"
    ]
    backend = Tokenizer(models.BPE({"a": 0, "##b": 1}, [], continuing_subword_prefix="##"))
    assert tokenizer_faults(PreTrainedTokenizerFast(tokenizer_object=backend)) == [
        "processing_class= marks the inside of words with '##', which is not known for byte-pair encoding"
    ]

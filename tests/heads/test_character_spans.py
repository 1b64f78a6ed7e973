"""Positions of two tokenizers that have read the same characters, against the definition in plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_distill.errors import ConfigurationError
from hf_distill.heads.character_spans import corresponding_positions, num_characters_read
from tests.text_tokenizers import (
    TEXTS,
    TOKENIZERS,
    byte_pair_tokenizer,
    points,
    unigram_tokenizer,
    wordpiece_tokenizer,
)


every_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)
every_pair = pytest.mark.parametrize("ours, theirs", [(a, b) for a in TOKENIZERS for b in TOKENIZERS])

PIECES = ("hello", "world", "naïve", "café", "cafe\u0301", "😀", "ﬁ", "Fox", "x", " ", "  ", "\n", ",", "…")
any_text = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


def reads(tokenizer, texts, side="right", **options):
    batch = tokenizer(list(texts), padding=True, padding_side=side, return_tensors="np", **options)
    return num_characters_read(tokenizer, texts, batch["input_ids"], batch["attention_mask"].astype(bool)), batch


@every_tokenizer
@settings(deadline=None, max_examples=30)
@given(text=any_text)
def test_characters_read_by_the_definition(name, text):
    tokenizer = TOKENIZERS[name]()
    row, batch = reads(tokenizer, [text])
    assert {i: end for i, end in enumerate(row[0].tolist()) if end != -1} == points(
        tokenizer, text, batch["input_ids"].shape[1]
    )


@pytest.mark.parametrize("name", ["bytes", "bytes with blanks"])
@settings(deadline=None, max_examples=30)
@given(text=any_text)
def test_the_bytes_read_are_those_of_the_characters(name, text):
    """Tokens of bytes say themselves what was read, whatever their spans say."""
    tokenizer = TOKENIZERS[name]()
    (row,), batch = reads(tokenizer, [text])
    for i, end in enumerate(row.tolist()):
        if end != -1:
            assert tokenizer.decode(batch["input_ids"][0, : i + 1]) == text[:end]


@every_pair
@settings(deadline=None, max_examples=10)
@given(texts=st.lists(any_text, min_size=1, max_size=3), sides=st.tuples(*[st.sampled_from(["left", "right"])] * 2))
def test_corresponding_positions_by_the_definition(ours, theirs, texts, sides):
    (student, batch), (teacher, teacher_batch) = (
        reads(TOKENIZERS[name](), texts, side) for name, side in zip((ours, theirs), sides, strict=True)
    )
    found = corresponding_positions(student, teacher)
    assert found.shape == batch["input_ids"].shape
    for row, text in enumerate(texts):
        length, width = batch["attention_mask"][row].sum(), batch["attention_mask"].shape[1]
        teacher_length, teacher_width = teacher_batch["attention_mask"][row].sum(), teacher.shape[1]
        shift = width - length if sides[0] == "left" else 0
        teacher_shift = teacher_width - teacher_length if sides[1] == "left" else 0
        mine, yours = points(TOKENIZERS[ours](), text, length), points(TOKENIZERS[theirs](), text, teacher_length)
        expected = np.full(width, -1)
        for i, end in mine.items():
            for j, other in yours.items():
                if end == other:
                    expected[i + shift] = j + teacher_shift
        assert found[row].tolist() == expected.tolist()


def tokens_at(tokenizer, text):
    row, batch = reads(tokenizer, [text])
    names = tokenizer.convert_ids_to_tokens(batch["input_ids"][0])
    return list(zip(names, row[0].tolist(), strict=True))


def test_a_character_of_several_bytes_is_read_at_its_last_one():
    assert tokens_at(byte_pair_tokenizer(), "hello 😀 x")[:4] == [("hello", 5), ("Ġ", 6), ("ðŁ", -1), ("ĺ", -1)]
    assert tokens_at(byte_pair_tokenizer(), "hello 😀 x")[4:] == [("Ģ", 7), ("Ġ", 8), ("x", 9)]


def test_a_blank_that_is_made_up_reads_nothing_for_certain():
    assert tokens_at(unigram_tokenizer(), "hello")[:2] == [("▁", -1), ("he", 2)]
    assert tokens_at(byte_pair_tokenizer(add_prefix_space=True), " x") == [("Ġ", -1), ("x", 2)]


def test_a_mark_that_one_puts_together_and_one_leaves_out():
    """Neither `e` with its mark in one, nor the bare `e`, is the `e` that bytes have read before the mark."""
    text = "e\u0301x"
    assert [end for _, end in tokens_at(unigram_tokenizer(), text)] == [-1, -1, 3, -1]
    assert [end for _, end in tokens_at(wordpiece_tokenizer(), text)] == [0, -1, 3, -1]
    assert [end for _, end in tokens_at(byte_pair_tokenizer(), text)] == [1, -1, 2, 3]


def test_special_tokens_read_nothing_of_the_text():
    """[CLS] has read nothing; [SEP] has read more than the text."""
    assert tokens_at(wordpiece_tokenizer(), " hello  world\n") == [
        ("[CLS]", 0),
        ("hello", 6),
        ("world", 13),
        ("[SEP]", -1),
    ]


@every_tokenizer
def test_the_same_tokenizer_gives_the_same_positions(name):
    tokenizer = TOKENIZERS[name]()
    row, batch = reads(tokenizer, TEXTS)
    found = corresponding_positions(row, row)
    own = np.broadcast_to(np.arange(row.shape[1]), row.shape)
    assert (found[row != -1] == own[row != -1]).all()
    assert (found[row == -1] == -1).all()
    assert (row != -1).sum() > 0.7 * (batch["attention_mask"].sum() - 2 * len(TEXTS))


@every_pair
def test_most_words_of_real_text_correspond(ours, theirs):
    (student, _), (teacher, _) = reads(TOKENIZERS[ours](), TEXTS), reads(TOKENIZERS[theirs](), TEXTS)
    words = sum(len(text.split()) for text in TEXTS)
    assert (corresponding_positions(student, teacher) != -1).sum() >= words - 1


def test_truncated_rows_read_as_far_as_they_go():
    """The row that ends within a character has not read it."""
    tokenizer = byte_pair_tokenizer()
    texts = ["hello 😀", "hello 😀😀", "x"]
    whole, _ = reads(tokenizer, texts)
    for length in range(1, 7):
        cut, batch = reads(tokenizer, texts, truncation=True, max_length=length)
        assert batch["input_ids"].shape[1] == min(length, whole.shape[1])
        assert cut.tolist() == whole[:, : cut.shape[1]].tolist()
    assert reads(tokenizer, ["hello 😀"], truncation=True, max_length=3)[0].tolist() == [[5, 6, -1]]


def test_special_tokens_that_were_put_around_by_hand():
    tokenizer, text = byte_pair_tokenizer(), "hello world"
    ids, end = tokenizer(text)["input_ids"], tokenizer.eos_token_id
    row = np.array([[end, end, *ids, end, end]])
    found = num_characters_read(tokenizer, [text], row, np.ones_like(row, dtype=bool))
    assert found.tolist() == [[-1, 0, 5, 11, -1, -1]]


def test_a_special_token_in_the_text_itself():
    tokenizer, text = byte_pair_tokenizer(), "x <eos> y"
    row = np.array([tokenizer(text)["input_ids"]])
    names = tokenizer.convert_ids_to_tokens(row[0])
    found = num_characters_read(tokenizer, [text], row, np.ones_like(row, dtype=bool))
    assert dict(zip(names, found[0].tolist(), strict=True))["<eos>"] == 7
    assert found[0, -1] == len(text)


@every_tokenizer
def test_empty_rows(name):
    tokenizer = TOKENIZERS[name]()
    row, _ = reads(tokenizer, ["", "hello", "  "])
    assert (row[0] == -1).all()
    assert (row[1] != -1).any()
    nothing = np.zeros((2, 0), dtype=np.int64)
    assert num_characters_read(tokenizer, ["", ""], nothing, nothing.astype(bool)).shape == (2, 0)
    assert corresponding_positions(nothing, row[:2]).shape == (2, 0)
    assert corresponding_positions(row[:1], nothing[:1]).tolist() == [[-1] * row.shape[1]]


def test_tokens_of_another_text():
    tokenizer = byte_pair_tokenizer()
    row = np.array([tokenizer("hello there")["input_ids"]])
    with pytest.raises(
        ConfigurationError, match=r"token id \d+ in place 1, where its text 'hello world' gives token id \d+ by Tok"
    ):
        num_characters_read(tokenizer, ["hello world"], row, np.ones_like(row, dtype=bool))
    with pytest.raises(ConfigurationError, match=r"in place 1, where its text 'hello' gives no more tokens"):
        num_characters_read(tokenizer, ["hello"], row, np.ones_like(row, dtype=bool))

"""What a server of completions may say, and what it may not."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_distill.errors import TeacherServerError
from hf_distill.teachers import completions


TOKENS = [7, 3, 5]
SOURCE = "http://h/v1/completions"


def entry(**log_probabilities):
    return {name[1:]: {"logprob": value, "rank": 1} for name, value in log_probabilities.items()}


def answer(*positions, **changes):
    return {"choices": [{"index": 0, "prompt_logprobs": [None, *positions], **changes}]}


FIRST = entry(_3=math.log(0.1), _9=math.log(0.5), _2=math.log(0.2))  # the token that stands there is none of the two
SECOND = entry(_5=math.log(0.7), _1=math.log(0.2))


def read(found, top_k=2, vocab_size=10):
    return completions.log_probabilities(found, TOKENS, top_k, vocab_size, SOURCE)


def test_log_probabilities_and_ids_of_each_position():
    values, indices = read(answer(FIRST, SECOND))
    torch.testing.assert_close(values.exp(), torch.tensor([[0.1, 0.5, 0.2], [0.7, 0.2, 0.0]]).double())
    assert indices[0].tolist() == [3, 9, 2]
    assert indices[1, :2].tolist() == [5, 1]
    assert indices[1, 2] in (5, 1)


def test_what_stands_for_no_probability_is_none():
    values, _ = read(answer(FIRST, entry(_5=0.0, _1=-9999.0)))
    assert values[1].tolist() == [0.0, -math.inf, -math.inf]


def test_a_row_of_one_token_says_nothing():
    values, indices = completions.log_probabilities(answer(), [7], 2, 10, SOURCE)
    assert values.shape == indices.shape == (0, 3)


def test_a_text_is_read_without_special_tokens_and_ids_as_they_are():
    assert completions.request("m", [7, 3], 4) == {
        "model": "m",
        "prompt": [7, 3],
        "max_tokens": 1,
        "prompt_logprobs": 4,
    }
    assert completions.request("m", "a b", 1)["add_special_tokens"] is False


def with_token(name, value=-2.5):
    return {**entry(_5=math.log(0.7)), name: {"logprob": value}}


NONSENSE = {
    "no object": (["x"], "`choices` that are NoneType"),
    "no choices": ({"id": 1}, "`choices` that are NoneType"),
    "two choices": ({"choices": answer()["choices"] * 2}, "a list of 2, and one choice"),
    "a choice that is none": ({"choices": ["x"]}, "a list of 1, and one choice"),
    "not vLLM's": ({"choices": [{"logprobs": {}}]}, "`prompt_logprobs` that are NoneType"),
    "nothing said": ({"choices": [{"prompt_logprobs": []}]}, "`prompt_logprobs` that are a list of 0"),
    "no null at first": ({"choices": [{"prompt_logprobs": [FIRST, FIRST, SECOND]}]}, "begins with null"),
    "too few": (answer(FIRST), "2 positions in `prompt_logprobs`, and 3 tokens were sent"),
    "too many": (answer(FIRST, SECOND, SECOND), "4 positions in `prompt_logprobs`, and 3 tokens were sent"),
    "null later": (answer(FIRST, None), "position 2 of `prompt_logprobs` as NoneType"),
    "other tokens": (answer(FIRST, entry(_4=-1.0, _1=-2.0)), "position 2 .* without the token 5 that stands there"),
    "NaN": (answer(FIRST, with_token("1", math.nan)), "position 2 .* log-probability nan of token '1'"),
    "above 0": (answer(FIRST, with_token("1", 0.5)), r"log-probability 0\.5 of token '1', which must be 0 at most"),
    "infinite": (answer(FIRST, with_token("1", math.inf)), "log-probability inf"),
    "a string": (answer(FIRST, with_token("1", "-1.0")), "log-probability '-1.0'"),
    "true": (answer(FIRST, with_token("1", True)), "log-probability True"),
    "no log-probability": (answer(FIRST, {**SECOND, "1": {}}), "log-probability None"),
    "a number alone": (answer(FIRST, {**SECOND, "1": -1.0}), "log-probability None"),
    "beyond": (answer(FIRST, with_token("10")), "the token '10', and token ids are numbers below 10"),
    "far beyond": (answer(FIRST, with_token("9" * 5000)), "the token '99999999999999999999', and token ids"),
    "negative": (answer(FIRST, with_token("-1")), "the token '-1'"),
    "a word": (answer(FIRST, with_token(" the")), "the token ' the'"),
    "twice": (answer(FIRST, {**SECOND, "01": {"logprob": -3.0}}), "1 tokens twice"),
    "fewer than asked": (answer(FIRST, entry(_5=-0.1)), r"with 1 tokens, and 2 were asked for .* `top_k=`"),
    "more than asked": (answer(FIRST, entry(_5=-2.0, _1=-2.0, _2=-3.0, _3=-3.0)), "with 4 tokens, and 2 were asked"),
    "logits": (answer(FIRST, entry(_5=-0.1, _1=-0.2)), r"add up to 1\.7\d* at position 2\. .*raw_logprobs"),
    "not the likeliest": (answer(FIRST, entry(_5=-9.0, _1=-9.5)), r"2 tokens that leave 0\.999\d* at position 2"),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_is_refused_with_both_values(case):
    found, message = NONSENSE[case]
    with pytest.raises(TeacherServerError, match=message) as caught:
        read(found)
    assert f"the answer of the teacher's server {SOURCE} makes no sense" in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("0123456789a", max_size=3), inner, max_size=4),
)
ENTRIES = st.dictionaries(st.integers(0, 12).map(str), st.fixed_dictionaries({"logprob": JSON}))
POSITIONS = st.lists(st.none() | JSON | ENTRIES, max_size=4)


@settings(max_examples=300, deadline=None)
@given(st.one_of(JSON, POSITIONS.map(lambda each: {"choices": [{"prompt_logprobs": [None, *each]}]})))
def test_any_json_is_read_or_refused(found):
    try:
        values, indices = read(found)
    except TeacherServerError:
        return
    assert values.shape == indices.shape == (2, 3)
    assert (values <= 0).all()
    assert ((indices >= 0) & (indices < 10)).all()


def test_right_answers_are_smaller_than_the_limit():
    longest = '"123456": {"logprob": -12.345678901234567, "rank": 123456, "decoded_token": "' + " " * 128 + '"}, '
    assert len(longest) * (20 + 1) * 100 < completions.max_answer_bytes(100, 20)

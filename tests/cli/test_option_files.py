"""A file of options says what it says on the command line, and nothing else."""

from argparse import ArgumentParser

import pytest
from transformers.hf_argparser import string_to_bool

from hf_distill.cli.option_files import option_words, plain_values
from hf_distill.errors import ConfigurationError


def words(text):
    parser = ArgumentParser()
    for name in ("text", "number"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--names", nargs="+")
    parser.add_argument("--switch", nargs="?", type=string_to_bool)
    return option_words(text, {action.dest: action for action in parser._actions}, "a.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("text: no", ["--text=no"]),  # a column may be called so
        ("text: 2024-01-01", ["--text=2024-01-01"]),
        ("number: 010", ["--number=010"]),  # 8 to YAML 1.1
        ("number: 1e-4", ["--number=1e-4"]),
        ("text: ''", ["--text="]),
        ("text: 'null'", ["--text=null"]),
        ("text: null\nnumber: ~", []),
        ("text: --names", ["--text=--names"]),
        ("switch: off", ["--switch=false"]),
        ("switch: Yes", ["--switch=true"]),
        ("switch: perhaps", ["--switch=perhaps"]),
        ("text: [0, no]", ["--text=0,no"]),
        ("names: [a, off]", ["--names", "a", "off"]),
        ("names: [-a]", ["--names=-a"]),
        ("text: {a: [1, no]}", ['--text={"a": [1, false]}']),
        ("", None),
    ],
)
def test_a_value_counts_as_it_is_written(text, expected):
    if expected is None:
        with pytest.raises(ConfigurationError, match=r"a\.yaml holds no `name: value`"):
            words(text)
    else:
        assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text: a\ntext: b", r"a\.yaml says text twice"),
        ("txt: a", r"txt is no option; is it text\?"),
        ("[text]: a", "is no option"),
        ("<<: {text: a}", "<< is no option"),
        ("text: &a b\nnumber: *a", r"aliases \(\*name\) are not read"),
        ("names: [a, --text=a]", "names is a list of other things than words and numbers"),
        ("names: [[a]]", "names is a list of other things"),
        ("text: {2024-01-01: 1}", "cannot be read"),
        ("text: {a: 2024-99-99}", "cannot be read"),
        ("text: !!python/object/apply:os.getcwd {}", "cannot be read"),
        ("text: {a: !!python/object/apply:os.getcwd []}", "cannot be read"),
        ("[" * 5000, "cannot be read"),
        ("text: a\x00", "cannot be read"),
        ("text: a\n---\ntext: b", "cannot be read"),
    ],
)
def test_what_is_no_file_of_options(text, message):
    with pytest.raises(ConfigurationError, match=message):
        words(text)


def test_a_few_lines_that_stand_for_more_than_fits_into_memory():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    with pytest.raises(ConfigurationError, match="aliases"):
        plain_values("\n".join(lines), "that")


def test_values_of_their_own_kinds():
    assert plain_values("{a: 1, b: [no, 1.5]}", "that") == {"a": 1, "b": [False, 1.5]}

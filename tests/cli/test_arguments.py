from dataclasses import fields
from typing import get_args

from hf_distill.cli.arguments import Recipe, option
from hf_distill.cli.calls import RECIPES
from hf_distill.cli.commands import COMMANDS


def test_every_option_says_what_it_is():
    for command in COMMANDS.values():
        for group in command.groups:
            assert group._argument_group_name
            assert all(field.metadata["help"].endswith(".") for field in fields(group))


def test_recipes_have_their_names():
    assert get_args(Recipe) == tuple(RECIPES)
    assert all(RECIPES[name].__name__ == name for name in RECIPES)


def test_an_option_has_a_default():
    made = option("What.", 3)
    assert (made.default, made.metadata["help"]) == (3, "What.")

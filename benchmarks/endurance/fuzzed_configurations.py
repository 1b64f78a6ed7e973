"""Configurations of all kinds, right and wrong: each is taken as it is meant, or refused by an error of ours.

    python benchmarks/endurance/fuzzed_configurations.py

Drawn are the arguments of a training, of terms, schedules, objectives, recipes and layer maps, the words of every
command of `hf-distill`, and its files of options, in proper YAML and in broken. What is taken is looked at: each
option has the value that was drawn, and an objective compares two small models. The commands themselves are not run.
"""

import argparse
import contextlib
import importlib
import inspect
import io
import json
import os
import random
import string
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from fuzzing import BYTES, battery, run_script
from transformers.hf_argparser import HfArgumentParser, string_to_bool

from hf_distill import DistillationTrainingArguments, Objective, functional, recipes, schedules, terms
from hf_distill.cli import calls, main
from hf_distill.cli.arguments import COUNTS
from hf_distill.cli.commands import COMMANDS
from hf_distill.cli.main import DEBUG
from hf_distill.cli.parsing import parser_of
from hf_distill.errors import DistillationError
from hf_distill.layer_maps import layer_pairs
from hf_distill.students import Budget
from hf_distill.types import Positions, Signals, Unit


sys.path.insert(0, str(Path(__file__).parents[2]))  # a script, not a package

from tests.terms.features import STUDENT, TEACHER, pair_of, where


NAN, INFINITY = float("nan"), float("inf")
HOSTILE: tuple[Any, ...] = (None, True, "", "hot", b"x", [], {}, (), [1], {"a": 1}, {1}, 1j, object(), torch.ones(2))
HOSTILE += (-1, 0, 10**400, NAN, INFINITY, -INFINITY, 1e-320, [[]], [(1,)], [(1, 2, 3)], [("a", "b")], [None], "\x00")
WEIGHTS = (0, 0.25, 0.5, 1, 1.0, 4.0, 100, schedules.Linear(1.0, 0.0), schedules.During(1.0, 0.5, 1.0))
DIVERGENCES = (functional.forward_kl, functional.jensen_shannon, functional.logit_mse)
DIVERGENCES_OF: Mapping[Any, tuple[Any, ...]] = {
    terms.DecoupledTerm: (functional.target_class_kl, functional.non_target_class_kl),
    terms.IntraClassTerm: (functional.intra_class_pearson_distance,),
}
RIGHT: Mapping[str, tuple[Any, ...]] = {
    "temperature": (1, 2.0, 8, schedules.Cosine(4.0, 1.0)),
    "divergence": DIVERGENCES,
    "distance": (functional.hidden_mse, functional.cosine_distance),
    "layer_map": ("uniform", "last", "top", "skip", "learned", [(1, 2)], [(-1, -1)], [(0, 0), (1, 4)], [(9, 9)]),
    "pooled": (None, "first", "last", "mean"),
    "side": (None, "encoder"),
    "relations": (("queries",), ("attention", "values"), ["keys"]),
    "num_relation_heads": (None, 1, 2, 4, 3),
    "projection_size": (1, 4),
    "stage": ("layers", "prediction"),
    "teacher_layer": (-1, 1, 4),
    "progress": (0.0, 0.5, 1.0),
    "value": (1.0, 2),
    "start": (0.0, 0.25, 1.0),
    "end": (0.5, 1.0, 0),
}


def arguments(function: Callable[..., Any], draw: random.Random) -> tuple[dict[str, Any], bool]:
    """Arguments by name, one in five hostile; and whether one is."""
    given: dict[str, Any] = {}
    is_hostile = False
    for name, parameter in inspect.signature(function).parameters.items():
        if name == "layers" or (parameter.default is not parameter.empty and draw.random() < 0.4):
            continue
        hostile = draw.random() < 0.2
        right = (
            DIVERGENCES_OF.get(function, RIGHT.get(name, WEIGHTS))
            if name == "divergence"
            else RIGHT.get(name, WEIGHTS)
        )
        given[name] = draw.choice(HOSTILE if hostile else right)
        is_hostile |= hostile
    return given, is_hostile


# ---- Arguments of Python --------------------------------------------------------------------------------------------


def training(draw: random.Random) -> str:
    """The options of a training that are ours, beside some of Transformers'."""
    given: dict[str, Any] = {"max_steps": 3, "learning_rate": 1e-3} if draw.random() < 0.5 else {}
    for name, right in {
        "temperature": (0.5, 2, 7.5),
        "alpha": (0, 0.5, 1.0),
        "report_agreement": (True, False),
        "preflight": (True, False),
        "train_sampling_strategy": ("auto", "random", "sequential", "group_by_length"),
    }.items():
        if draw.random() < 0.5:
            given[name] = draw.choice(HOSTILE if draw.random() < 0.3 else right)
    made = DistillationTrainingArguments(output_dir="unused", use_cpu=True, **given)
    expect(made, given)
    return "taken"


def term(draw: random.Random) -> str:
    kind = getattr(terms, draw.choice([name for name in terms.__all__ if name not in ("Term", "FeatureTerm")]))
    given, is_hostile = arguments(kind, draw)
    made = kind(**given)
    expect(made, given)
    if not is_hostile:
        compare(made)
    return "taken"


def objective(draw: random.Random) -> str:
    names = [name for name, value in vars(recipes).items() if hasattr(value, "__wrapped__")]
    if draw.random() < 0.7:
        recipe = getattr(recipes, draw.choice(names))
        given, is_hostile = arguments(recipe, draw)
        made = recipe(**given)
        if made.recipe != recipe.__name__:
            raise AssertionError(f"{recipe.__name__} calls itself {made.recipe}")
    else:
        is_hostile = draw.random() < 0.5
        parts = {
            draw.choice(("soft", "labels", "a/b", "")): (
                draw.choice(HOSTILE if is_hostile and draw.random() < 0.5 else WEIGHTS),
                draw.choice(HOSTILE if is_hostile and draw.random() < 0.5 else (terms.SoftTargetTerm(),)),
            )
            for _ in range(draw.randrange(3))
        }
        made = Objective(
            draw.choice(HOSTILE) if is_hostile and draw.random() < 0.2 else parts,
            draw.choice(HOSTILE) if is_hostile and draw.random() < 0.2 else draw.choice(("given", "balanced")),
        )
    if any(weight < 0 for weight in made.weights(0.5).values()):
        raise AssertionError("a weight is negative")
    repr(made), made.requires, made.units, made.log_values(0.5)
    if not is_hostile:
        for weighted in made.terms.values():
            compare(weighted.term)
    return "taken"


def schedule(draw: random.Random) -> str:
    kind = draw.choice((schedules.Constant, schedules.Linear, schedules.Cosine, schedules.During))
    given, _ = arguments(kind, draw)
    made = kind(**given)
    expect(made, given)
    for progress in (0.0, 0.3, 1.0):
        if not made.minimum <= made(progress) <= made.maximum:
            raise AssertionError(f"{made} leaves its bounds")
    return "taken"


def layer_map(draw: random.Random) -> str:
    chosen = draw.choice(HOSTILE if draw.random() < 0.5 else RIGHT["layer_map"])
    depths = draw.randrange(1, 13), draw.randrange(1, 13)
    for pair in layer_pairs(chosen, *depths, first=draw.randrange(2)):
        if not all(0 <= layer <= depth for layer, depth in zip(pair, depths, strict=True)):
            raise AssertionError(f"{chosen} of {depths} has {pair}")
    return "taken"


def budget(draw: random.Random) -> str:
    number = draw.choice(("3", "1.5", "0", "1", "", "1.2.3", "9" * 400, "-3", "nan", "٣", "."))
    text = draw.choice(
        (f"{number}x faster", f"{number}x smaller", f"{number}MB", f"{number}ms", f"{number} kb", number)
    )
    made = Budget.parse(text)
    value = made.limit if made.factor is None else made.factor
    if value is None or not 0 < value < INFINITY:
        raise AssertionError(f"{text!r} became {made}")
    return "taken"


def expect(made: Any, given: Mapping[str, Any]) -> None:
    """Every argument is there, as it was given."""
    for name, value in given.items():
        if name != "divergence" or hasattr(made, name):
            found = getattr(made, name)
            if found is not value and not (type(found) in (int, float, str) and found == value):
                raise AssertionError(f"{type(made).__name__} has {name}={found!r}, and {value!r} was given")


def compare(made: terms.Term) -> None:
    """The term reads two small models."""
    bound = made.bound("term", STUDENT, TEACHER)
    if bound.requires.student_features:
        student, teacher = pair_of(bound)
        bound(student, teacher, where(), 0.5)
        return
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        Signals(torch.randn(3, 5, generator=generator), torch.tensor(1.0), boxes=torch.rand(3, 4, generator=generator))
        for _ in range(2)
    )
    counts = {unit: torch.tensor(3) for unit in Unit}
    bound(
        student, teacher, Positions(torch.ones(3, dtype=torch.bool), counts, targets=torch.tensor([0, 1, -100])), 0.5
    )


# ---- Words and files ------------------------------------------------------------------------------------------------

TEXTS = (
    "a",
    "no",
    "null",
    "~",
    "1e3",
    "010",
    "2024-01-01",
    "-x",
    "--teacher",
    "a b",
    "",
    " ",
    "é٣",
    "a: b",
    "[1",
    "#",
    "=",
)
TRAINING: Mapping[str, tuple[str, ...]] = {
    "temperature": ("1", "2.5", "1e1"),
    "alpha": ("0", "1.0", "5e-1"),
    "preflight": ("true", "no"),
    "report_agreement": ("true", "0"),
    "train_sampling_strategy": ("auto", "random"),
    "learning_rate": ("1e-3", "0.1"),
    "max_steps": ("3", "-1", "1_0"),
    "num_train_epochs": ("1.5", "2"),
    "per_device_train_batch_size": ("4",),
    "seed": ("7", "+7"),
    "lr_scheduler_type": ("cosine", "linear"),
    "label_names": ("labels", "no"),
    "run_name": TEXTS,
    "weight_decay": ("0", ".5"),
    "logging_steps": ("5",),
}
OWN: Mapping[str, tuple[str, ...]] = {
    "recipe_args": (
        "temperature: 3",
        "{beta: 2}",
        "stage: layers",
        "{",
        "a",
        "[1]",
        "*a",
        "a: 2024-99-99",
        "1: 2",
        "}",
    ),
    "layers": ("uniform", "0,3", "0,x", "²", "", "3,", "last", "-1"),
    "budget": ("3x faster", "10MB", "nanx faster", "9.9.9ms", "5s"),
    "task": ("text-classification", "poetry", ""),
}
WRONG: Mapping[Any, tuple[str, ...]] = {
    int: ("few", "1.5", "", "1e3", "0x10", "true"),
    float: ("few", "", "1,5", "0x10"),
    string_to_bool: ("perhaps", "", "2", "None"),
}
YAML_BOMB = "a: &a [x, x, x]\nb: &b [*a, *a, *a]\n"
SNIPPETS = (YAML_BOMB, "<<: {seed: 1}\n", "---\n", "[" * 3000, "? [a]\n: b\n", "seed: !!python/name:os.system\n", "\t")
SNIPPETS += (
    "seed: 1\nseed: 2\n",
    "teacher: !!binary x\n",
    "%YAML 9.9\n",
    "a: b: c\n",
    "'",
    "{a: 1, ",
    "- a\n",
    "\x00",
)


@cache
def parser_named(name: str) -> HfArgumentParser:
    return parser_of(name, COMMANDS[name], with_training=COMMANDS[name].trains)


def drawn_options(name: str, draw: random.Random) -> tuple[dict[str, str], bool]:
    """Options of a command as texts, and whether all of them are right."""
    actions = {action.dest: action for action in reversed(parser_named(name)._actions)}
    ours = [name for group in COMMANDS[name].groups for name in group.__dataclass_fields__]
    needed = [action.dest for action in actions.values() if action.required]
    names = dict.fromkeys([*needed, *(["output_dir"] if "output_dir" in actions else [])])
    names |= dict.fromkeys(draw.sample(ours, draw.randrange(min(4, len(ours)))))
    if COMMANDS[name].trains:
        names |= dict.fromkeys(draw.sample(list(TRAINING), draw.randrange(4)))
    options, are_right = {}, True
    for each in draw.sample(list(names), len(names)):
        action = actions[each]
        kind = string_to_bool if action.nargs == "?" else action.type
        right = OWN.get(each) or TRAINING.get(each) or action.choices or (("3", "64") if each in COUNTS else None)
        right = right or {int: ("3", "0", "-2"), float: ("0.5", "1e-3"), string_to_bool: ("true", "f", "YES")}.get(
            kind, TEXTS
        )
        options[each] = str(draw.choice(list(right)))
        if kind in WRONG and draw.random() < 0.05:
            options[each], are_right = draw.choice(WRONG[kind] + ("0", "-2") * (each in COUNTS)), False
    return options, are_right


def meant(name: str, text: str, action: argparse.Action) -> Any:
    """The value that a text stands for."""
    if action.dest == "output_dir" and name in COMMANDS and COMMANDS[name].trains:
        return os.path.expanduser(text)
    if action.nargs == "?":
        return text.lower() in ("true", "yes", "1", "t", "y", "on")
    if action.nargs == "+":
        return [text]
    return {int: int, float: float}.get(action.type, str)(text)


class Called(list):  # type: ignore[type-arg]
    """In place of the commands: what they are called with."""

    def run(self, *groups: Any) -> int:
        self[:] = groups
        for group in groups:
            given = vars(group) if not isinstance(group, dict) else {}
            if "num_hidden_layers" in given:
                calls.source_of(group)
            if "pooled" in given:
                calls.kept_layers_of(given["layers"])
            if "recipe_args" in given:
                calls.objective_of(group, DistillationTrainingArguments(output_dir="unused", use_cpu=True))
            if given.get("task") is not None:
                calls.task_of(given["task"], "unused")
            if "budget" in given:
                Budget.parse(given["budget"])
        return 0


def called(words: list[str]) -> tuple[int, str, Called]:
    """The exit code of the command line, what it says on the error output, and what its command got."""
    found, said = Called(), io.StringIO()
    module = importlib.import_module(f"hf_distill.cli.{words[0]}") if words[0] in COMMANDS else None
    before = dict(os.environ)
    if module is not None:
        module.run = found.run  # of this process, which ends soon
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main(words)
    os.environ.clear()
    os.environ.update(before)
    return code, said.getvalue(), found


def check_called(name: str, options: Mapping[str, str], are_right: bool, words: list[str]) -> str:
    """All options have the values that were drawn, or the command has said what is wrong."""
    code, said, found = called([name, *words])
    if code == 2:
        if are_right or "error: " not in said:
            raise AssertionError(f"right options are refused: {words}: {said}")
        return "refused as a wrong option"
    if not are_right or code not in (0, 1):
        raise AssertionError(f"wrong options end with {code}: {words}: {said}")
    if code == 1 and (said.count("\n") != 1 or not said.startswith("hf-distill: error: ")):
        raise AssertionError(f"an error is no line: {words}: {said}")
    if code == 1 and said.split(": ")[2].endswith("Error"):
        raise AssertionError(f"an error that is not ours: {words}: {said}")
    values = {key: value for group in found[:-1] for key, value in vars(group).items()}
    actions = {action.dest: action for action in reversed(parser_named(name)._actions)}
    for each, text in options.items():
        if values[each] != meant(name, text, actions[each]):
            raise AssertionError(f"{each} is {values[each]!r}: {words}")
    if found[-1].keys() != options.keys():
        raise AssertionError(f"said: {found[-1].keys()}, and was {options.keys()}")
    return "refused by an error of ours" if code else "taken"


def words_of(options: Mapping[str, str], draw: random.Random) -> list[str]:
    words = []
    for name, text in options.items():
        option = f"--{name.replace('_', '-') if draw.random() < 0.2 else name}"
        is_one = text.startswith("-") or text == "" or draw.random() < 0.5
        words += [f"{option}={text}"] if is_one else [option, text]
    return words


def command(draw: random.Random) -> str:
    name = draw.choice(list(COMMANDS))
    options, are_right = drawn_options(name, draw)
    return check_called(name, options, are_right, words_of(options, draw))


def broken_command(draw: random.Random) -> str:
    """Any words: no traceback, and a code that is documented."""
    name = draw.choice([*COMMANDS, "distil", ""])
    names = [action.option_strings[0] for action in parser_named("distill")._actions if action.option_strings]
    some = [*TEXTS, "\x00", "-", "--", "---", "-h=", "x" * 9999, "a.yaml", "..", "{}", "[1]", "\udcff", "a\nb"]
    words = [name]
    if name in COMMANDS and draw.random() < 0.7:
        words += words_of(drawn_options(name, draw)[0], draw)
    for _ in range(draw.randrange(6)):
        word = draw.choice(
            some if draw.random() < 0.4 else [each for each in names if "help" not in each and each != DEBUG]
        )
        words.append(f"{word}={draw.choice(some)}" if draw.random() < 0.4 else word)
    return ended(*called(words))


def ended(code: int, said: str, _: Called) -> str:
    if code not in (0, 1, 2) or "Traceback" in said or (code == 1 and said.count("\n") != 1):
        raise AssertionError(f"ends with {code}: {said}")
    return {0: "taken", 1: "refused in one line", 2: "refused as a wrong option"}[code]


def yaml_of(options: Mapping[str, str], draw: random.Random) -> str:
    lines = []
    for name, text in options.items():
        is_plain = (
            text and set(text) <= set(string.ascii_letters + string.digits + ",._-+") and text not in ("null", "-")
        )
        right = [json.dumps(text), "'" + text.replace("'", "''") + "'", *[text] * (3 * bool(is_plain))]
        lines.append(f"{name}: {draw.choice(right)}")
    return "\n".join(lines) + "\n"


def file(folder: Path, draw: random.Random) -> str:
    name = draw.choice(list(COMMANDS))
    options, are_right = drawn_options(name, draw)
    last = draw.sample(list(options), draw.randrange(2))
    path = folder / draw.choice(("options.yaml", "options.yml"))
    path.write_text(yaml_of({**options, **dict.fromkeys(last, "ignored")}, draw), encoding="utf-8")
    words = words_of({each: options[each] for each in last}, draw)
    actions = {action.dest: action for action in parser_named(name)._actions}
    if any(actions[each].type is not str or actions[each].choices for each in last):
        path.write_text(
            yaml_of({key: text for key, text in options.items() if key not in last}, draw), encoding="utf-8"
        )
    return check_called(name, options, are_right, [str(path), *words])


def broken_file(folder: Path, draw: random.Random) -> str:
    """Any bytes: no traceback, and a code that is documented."""
    name = draw.choice(list(COMMANDS))
    options, _ = drawn_options(name, draw)
    path = folder / draw.choice(("options.yaml", "options.json"))
    lines = yaml_of(options, draw).splitlines(keepends=True)
    if draw.random() < 0.6:
        lines.insert(draw.randrange(len(lines) + 1), draw.choice(SNIPPETS))
    content = "".join(lines).encode()
    path.write_bytes(draw.choice(BYTES)(content, draw) if draw.random() < 0.6 else content)
    return ended(*called([name, str(path)]))


KINDS = (training, term, objective, schedule, layer_map, budget, command, broken_command)


def case(folder: Path, draw: random.Random) -> str:
    """One configuration."""
    kind = draw.choice((*KINDS, partial(file, folder), partial(broken_file, folder)))
    name = getattr(kind, "func", kind).__name__.replace("_", " ")
    try:
        return f"{name}: {kind(draw)}"
    except DistillationError as error:
        return f"{name}: {type(error).__name__}"


def fuzz_configurations(folder: Path, num_cases: int, seed: int) -> dict[str, Any]:
    """So many cases; what they left is in the folder."""
    torch.set_num_threads(1)
    return battery(partial(case, folder), num_cases, seed)


if __name__ == "__main__":
    run_script(__doc__, "endurance/fuzzed_configurations", fuzz_configurations)

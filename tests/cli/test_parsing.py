import json

import pytest
import yaml

from hf_distill.cli.commands import COMMANDS
from hf_distill.cli.parsing import parse


NEEDED = ["--teacher", "t", "--dataset", "d", "--output_dir", "o"]


def parsed(*words, name="distill"):
    groups, said = parse(name, COMMANDS[name], words)
    return {key: value for group in groups for key, value in vars(group).items()}, said


def put(folder, text):
    path = folder / "options.yaml"
    path.write_text(text)
    return str(path)


def test_options_in_both_spellings():
    options, said = parsed(*NEEDED, "--num-hidden-layers", "3", "--learning_rate=1e-3", "--baseline")
    assert (options["num_hidden_layers"], options["learning_rate"], options["baseline"]) == (3, 1e-3, True)
    assert said == {
        "teacher": "t",
        "num_hidden_layers": 3,
        "dataset": "d",
        "baseline": True,
        "output_dir": "o",
        "learning_rate": 1e-3,
    }


def test_a_file_is_read_as_the_command_line_is_which_counts_more(tmp_path):
    text = """
        teacher: t
        dataset: d
        output_dir: o
        learning_rate: 1e-4
        layers: [0, 3]
        recipe: tinybert
        recipe_args: {stage: layers}
        lr_scheduler_kwargs: {num_cycles: 2}
        label_names: [a, b]
        preflight: false
        bf16: no
        eval_steps: null
        seed: 7
    """
    options, _ = parsed(put(tmp_path, text), "--seed", "8", "--recipe", "dkd")
    assert options["learning_rate"] == 1e-4  # which YAML reads as a string
    assert options["layers"] == "0,3"
    assert json.loads(options["recipe_args"]) == {"stage": "layers"}
    assert options["lr_scheduler_kwargs"] == {"num_cycles": 2}
    assert options["label_names"] == ["a", "b"]
    assert (options["preflight"], options["bf16"], options["eval_steps"]) == (False, False, None)
    assert (options["seed"], options["recipe"]) == (8, "dkd")


def test_what_was_said_says_the_same_again_as_a_file(tmp_path):
    words = [*NEEDED, "--layers", "0,2", "--bf16", "false", "--lr_scheduler_type", "cosine", "--label_names", "a", "b"]
    options, said = parsed(*words)
    again, said_again = parsed(put(tmp_path, yaml.safe_dump(said)))
    assert said_again == said
    unequal = {name for name in options if again[name] != options[name] and name != "distributed_state"}
    assert unequal == set()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learnin_rate: 1", "options.yaml: learnin_rate is no option; is it learning_rate?"),
        ("zzzzzzzz: 1", "options.yaml: zzzzzzzz is no option"),
        ("- a", "holds no `name: value`"),
        ("a: [", "options.yaml cannot be read"),
        ("max_steps: few", "invalid int value: 'few'"),
    ],
)
def test_a_wrong_file_is_a_wrong_option(text, message, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        parsed(put(tmp_path, text), *NEEDED)
    assert message in capsys.readouterr().err


def test_a_file_that_is_not_there(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        parsed(str(tmp_path / "gone.yaml"))
    assert "gone.yaml cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option"),
    [("check", "num_rows"), ("export", "num_rows"), ("evaluate", "batch_size"), ("cache", "epochs")]
    + [("distill", name) for name in ("max_length", "max_target_length", "sampling_rate")],
)
def test_a_number_of_things_is_at_least_1(command, option, capsys):
    needed = NEEDED if command != "evaluate" and command != "export" else ["--model", "m", *NEEDED[2:4]]
    needed = [*needed, "--output_dir", "o"] if command == "export" else needed
    for number in ("0", "-3"):
        with pytest.raises(SystemExit, match="2"):
            parsed(*needed, f"--{option}", number, name=command)
        assert f"argument --{option}: {number} is given, and it is a number of things" in capsys.readouterr().err
    assert parsed(*needed, f"--{option}", "1", name=command)[0][option] == 1


def test_the_model_may_stand_first():
    assert parsed("t", *NEEDED[2:])[1]["teacher"] == "t"
    assert parsed("org/m", "--dataset", "d", name="evaluate")[1] == {"model": "org/m", "dataset": "d"}


def test_help_has_one_spelling_and_no_empty_defaults(capsys):
    with pytest.raises(SystemExit, match="0"):
        parsed("--help")
    said = capsys.readouterr().out
    assert "--num_hidden_layers N" in said
    assert "--num-hidden-layers" not in said
    assert "None" not in said and "False" not in said
    assert "(default: train)" in said
    with pytest.raises(SystemExit, match="0"):
        parsed("--help", name="report")
    assert "--exports" in (said := capsys.readouterr().out) and "[]" not in said

import os
import signal
import subprocess
import sys
import time

import pytest

import hf_distill
from hf_distill.cli import main
from hf_distill.cli.commands import COMMANDS
from hf_distill.cli.main import say_stopped
from tests.tiny_jobs import QUICK, put_job


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}


def command(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "hf_distill", *words], capture_output=True, text=True, env=ENVIRONMENT, **options
    )


def test_without_a_command_it_says_which_there_are(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in COMMANDS)
    assert main([]) == 2
    assert main(["distil"]) == 2
    assert "'distil' is no command; these are: distill, teacher" in capsys.readouterr().err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == hf_distill.__version__


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_tells_its_options(name, capsys):
    assert main([name, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert COMMANDS[name].summary[1:] in said
    assert ("--learning_rate" in said) == COMMANDS[name].trains


def test_all_options_on_demand(capsys):
    assert main(["distill", "--help_all"]) == 0
    assert "--lr_scheduler_type" in capsys.readouterr().out


def imported_by(*arguments):
    """The modules that a new Python imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["distill", "--help"], ["tune", "--help"]])
def test_it_starts_with_no_more_than_transformers(words):
    allowed = {name.partition(".")[0] for name in imported_by("-c", "import transformers")}
    found = imported_by("-m", "hf_distill", *words)
    assert {name.partition(".")[0] for name in found} - allowed - sys.stdlib_module_names <= {"hf_distill", "yaml"}
    parts = {name for name in found if name.startswith(("transformers.", "hf_distill."))}
    assert not {
        name for name in parts if name.startswith(("transformers.models", "transformers.train", "hf_distill.models"))
    }


def test_a_library_import_registers_the_models_whatever_the_program_is_called(tmp_path):
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("import hf_distill\n")
    (package / "__main__.py").write_text(
        "from transformers import AutoConfig\nprint(AutoConfig.for_model('encoder_lm').model_type)\n"
    )
    path = os.pathsep.join([str(tmp_path), os.path.dirname(os.path.dirname(hf_distill.__file__))])
    done = subprocess.run(
        [sys.executable, "-m", "mine"], capture_output=True, text=True, env={**ENVIRONMENT, "PYTHONPATH": path}
    )
    assert done.stdout.strip() == "encoder_lm", done.stderr


def test_an_error_is_one_line_and_the_traceback_is_there_on_demand(tmp_path, capsys):
    words = ["evaluate", "--model", str(tmp_path / "gone"), "--dataset", str(tmp_path)]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("hf-distill: error: ")
    assert "--debug" in said and "Traceback" not in said
    assert main([*words, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_our_errors_stand_without_their_kind(tmp_path, capsys):
    (tmp_path / "a.xls").write_text("")
    put_job(tmp_path, "text-classification")
    words = ["--model", str(tmp_path / "teacher"), "--dataset", str(tmp_path / "a.xls")]
    capsys.readouterr()
    assert main(["evaluate", *words]) == 1
    assert capsys.readouterr().err.startswith("hf-distill: error: dataset=")


def test_the_option_of_transformers_is_left_alone(capsys):
    assert main(["distill", "--debug", "underflow_overflow", "--help"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the following arguments are required: --teacher, --dataset"),
        (["--teacher", "a", "--dataset", "b"], "the following arguments are required: --output_dir"),
        (["--teacher", "a", "--dataset", "b", "--max_steps", "few"], "invalid int value: 'few'"),
        (
            ["--teacher", "a", "--dataset", "b", "--tempature", "2"],
            "unrecognized arguments: --tempature 2; is it --temperature?",
        ),
        (["--teacher", "a", "--dataset", "b", "--recipe", "magic"], "invalid choice: 'magic'"),
    ],
)
def test_a_wrong_option_is_2(words, said, capsys):
    assert main(["distill", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_how_it_goes_on(number, code, tmp_path):
    words = put_job(tmp_path, "text-classification")
    out = tmp_path / "out"
    words = ["distill", *words, "--num_hidden_layers", "1", "--output_dir", str(out), *QUICK]
    long = [*words, "--max_steps", "100000", "--logging_steps", "1"]
    running = subprocess.Popen(
        [sys.executable, "-m", "hf_distill", *long],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    while "'loss'" not in (line := running.stdout.readline()):
        assert line or running.poll() is None, running.stderr.read()
        time.sleep(0.01)
    running.send_signal(number)
    _, error = running.communicate(timeout=60)
    assert running.returncode == code, error
    (checkpoint,) = out.glob("checkpoint-*")
    assert error.strip().splitlines()[-1].endswith(f"{checkpoint}; go on with --resume.")


@pytest.mark.parametrize(
    ("name", "how"), [("distill", "go on with --resume"), ("cache", "give the same command again")]
)
def test_a_stopped_command_says_what_goes_on(name, how, capsys):
    assert say_stopped(KeyboardInterrupt(), name) == 130
    assert capsys.readouterr().err == f"hf-distill: stopped; {how}.\n"

"""The arguments that are ours, and all the others."""

import pytest
from transformers import HfArgumentParser

from hf_distill import DistillationTrainingArguments
from hf_distill.errors import ConfigurationError


@pytest.mark.parametrize("temperature", [0, -1.5, float("nan"), float("inf")])
def test_temperature_out_of_range(tmp_path, temperature):
    with pytest.raises(ConfigurationError, match=rf"temperature must be above 0, got {temperature}"):
        DistillationTrainingArguments(output_dir=str(tmp_path), temperature=temperature)


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_alpha_out_of_range(tmp_path, alpha):
    with pytest.raises(ConfigurationError, match=rf"alpha must lie between 0 .* and 1 .*, got {alpha}; .*objective="):
        DistillationTrainingArguments(output_dir=str(tmp_path), alpha=alpha)


def test_all_faults_at_once(tmp_path):
    with pytest.raises(ConfigurationError, match=r"temperature must be above 0, got -2; .*; alpha must lie .* got 3"):
        DistillationTrainingArguments(output_dir=str(tmp_path), temperature=-2, alpha=3)


@pytest.mark.parametrize("alpha", [0, 1])
def test_integers_become_floats(tmp_path, alpha):
    """A hyperparameter search casts each value to the type of the old one, so that 0.3 would become 0."""
    args = DistillationTrainingArguments(output_dir=str(tmp_path), temperature=2, alpha=alpha)
    assert (type(args.temperature), type(args.alpha)) == (float, float)


def test_parsed_from_a_command_line_and_back(tmp_path):
    line = f"--output_dir {tmp_path} --temperature 3 --alpha 0.25 --report_agreement --learning_rate 1e-3"
    (args,) = HfArgumentParser(DistillationTrainingArguments).parse_args_into_dataclasses(line.split())
    assert (args.temperature, args.alpha, args.report_agreement, args.learning_rate) == (3.0, 0.25, True, 1e-3)
    assert args.to_dict()["temperature"] == 3.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "2"),
        ("temperature", None),
        ("temperature", True),
        ("temperature", 10**400),
        ("alpha", "0.5"),
        ("alpha", [0.5]),
        ("preflight", "false"),
        ("report_agreement", 1),
    ],
)
def test_refuses_values_of_another_kind(name, value):
    with pytest.raises(ConfigurationError, match=f"{name} must .* got "):
        DistillationTrainingArguments(output_dir="unused", use_cpu=True, **{name: value})

import os

from hf_distill.cli import main
from hf_distill.invariances import TOLERANCES
from tests.tiny_jobs import put_job


WORDS = ("--use_cpu", "--dataloader_pin_memory", "false")


def test_what_holds_is_0_and_nothing_is_left(tmp_path, capsys, monkeypatch):
    words = put_job(tmp_path, "text-classification")
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir(tmp_path))
    assert main(["check", *words, "--num_hidden_layers", "1", *WORDS]) == 0
    said = capsys.readouterr().out
    assert "accumulation                             held" in said
    assert "teacher: accuracy" in said
    assert sorted(os.listdir(tmp_path)) == before


def test_a_broken_equality_is_1(tmp_path, capsys, monkeypatch):
    words = put_job(tmp_path, "text-classification")
    monkeypatch.setattr("hf_distill.invariances.TOLERANCES", dict.fromkeys(TOLERANCES, -1.0))
    assert main(["check", *words, "--num_hidden_layers", "1", *WORDS]) == 1
    assert "BROKEN" in capsys.readouterr().out

import json
import logging

import pytest
import yaml

from hf_distill.errors import ConfigurationError
from hf_distill.jobs.evidence import Evidence, open_job, open_search, table


def test_what_was_measured_is_not_measured_again(tmp_path):
    evidence = Evidence(tmp_path)
    assert evidence.measured("a", lambda: {"x": 1}) == {"x": 1}
    again = Evidence(tmp_path)
    assert again.measured("a", lambda: pytest.fail("measured twice")) == {"x": 1}
    assert json.loads((tmp_path / "evidence.json").read_text()) == {"a": {"x": 1}}


def test_one_process_writes_and_tells(tmp_path, capsys):
    silent = Evidence(tmp_path, writes=False)
    silent.measured("a", lambda: {"x": 1})
    silent.tell("The teacher is measured.")
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().out == ""
    Evidence(tmp_path).tell("The teacher is measured.")
    assert capsys.readouterr().out == "\nThe teacher is measured.\n"


def test_a_job_that_is_there_is_gone_on_with_or_refused(tmp_path, caplog):
    logging.getLogger("transformers").propagate = True
    open_job(tmp_path, {"seed": 1}, resume=False).measured("a", lambda: {"x": 1})
    with pytest.raises(ConfigurationError, match="holds a job that was started before"):
        open_job(tmp_path, {"seed": 1}, resume=False)
    open_job(tmp_path, {"seed": 1, "resume": True}, resume=True)
    assert caplog.records == []
    open_job(tmp_path, {"seed": 2}, resume=True)
    assert "seed: 1 before, 2 now" in caplog.text
    assert yaml.safe_load((tmp_path / "arguments.yaml").read_text()) == {"seed": 2}


def test_a_job_that_failed_before_it_began_is_started_anew(tmp_path, caplog):
    logging.getLogger("transformers").propagate = True
    open_job(tmp_path, {"seed": 1}, resume=False)
    open_job(tmp_path, {"seed": 2}, resume=False)
    assert caplog.records == []
    assert yaml.safe_load((tmp_path / "arguments.yaml").read_text()) == {"seed": 2}


def test_a_search_goes_on_with_its_own_arguments_alone(tmp_path):
    free = ("n_trials", "output_dir")
    open_search(tmp_path, {"teacher": "a", "n_trials": 1, "output_dir": "x"}, free)
    open_search(tmp_path, {"teacher": "b", "n_trials": 1}, free)  # of before nothing was tried
    (tmp_path / "study.db").touch()
    open_search(tmp_path, {"teacher": "b", "n_trials": 9, "output_dir": "./x"}, free)
    assert yaml.safe_load((tmp_path / "arguments.yaml").read_text())["n_trials"] == 9
    with pytest.raises(
        ConfigurationError, match=r"other arguments \(teacher: 'b' before, 'c' now, seed: None before, 1"
    ):
        open_search(tmp_path, {"teacher": "c", "seed": 1, "n_trials": 9}, free)
    assert yaml.safe_load((tmp_path / "arguments.yaml").read_text())["teacher"] == "b"


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md", "checkpoint-7", "report"])
def test_what_no_job_has_written_is_not_written_over(tmp_path, name, resume):
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigurationError, match=f"holds {name} of something else, which would be lost"):
        open_job(tmp_path, {"seed": 1}, resume)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_a_job_does_not_write_may_lie_there(tmp_path):
    (tmp_path / "options.yaml").touch()
    (tmp_path / "log.txt").touch()
    open_job(tmp_path, {"seed": 1}, resume=False)
    assert {path.name for path in tmp_path.iterdir()} == {"options.yaml", "log.txt", "arguments.yaml"}


@pytest.mark.parametrize("name", ["arguments.yaml", "evidence.json"])
@pytest.mark.parametrize("content", ["", "3", "- a", "{", "a: [", "\x00"])
def test_a_damaged_file_of_the_job_is_named(tmp_path, name, content):
    open_job(tmp_path, {"seed": 1}, resume=False).measured("a", lambda: {"x": 1})
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigurationError, match=f"{name} is not as this job has written it"):
        open_job(tmp_path, {"seed": 1}, resume=True)


def test_the_table_leaves_out_losses_and_what_was_not_measured():
    measured = {
        "teacher": {"parameters": 1000, "scores": {"loss": 1.0, "loss/labels": 1.0, "accuracy": 0.5}},
        "distilled": {"parameters": 10, "scores": {"loss": 2.0, "accuracy": 0.25, "agreement": 0.75}},
        "plan": {"steps": 3},
    }
    head, *rows = (line.split() for line in table(measured).splitlines())
    assert head == ["model", "parameters", "accuracy", "agreement"]
    assert rows == [["teacher", "1,000", "0.5", "-"], ["distilled", "10", "0.25", "0.75"]]

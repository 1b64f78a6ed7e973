"""What reaches TensorBoard, Trackio and W&B, read back from the files that each of them writes."""

import json
import math
import sqlite3
import struct
from contextlib import closing

import pytest
from transformers import TrainerCallback

from hf_distill import HardLabelTerm, Linear, Objective, SoftTargetTerm
from tests.tiny_models import rows_for
from tests.tiny_trainers import trainer_for


class Tracker(TrainerCallback):
    """Logs as the trackers of Transformers do: numbers by name and step, from `on_log` on the main process."""

    def __init__(self):
        self.steps = {}

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero:
            self.steps.setdefault(state.global_step, {}).update(logs)


def test_terms_weights_temperatures_and_gradient_norms(tmp_path):
    tracker = Tracker()
    objective = Objective(
        {"labels": (Linear(0.2, 0.8), HardLabelTerm()), "soft": (1.0, SoftTargetTerm(Linear(4.0, 1.0)))}
    )
    trainer = trainer_for(tmp_path, objective=objective, callbacks=[tracker], max_steps=4, max_grad_norm=1.0)
    trainer.train()
    for step in range(1, 5):
        logs = tracker.steps[step]
        names = ("loss", "loss/labels", "loss/soft", "weight/labels", "temperature/soft", "grad_norm", "learning_rate")
        assert all(math.isfinite(logs[name]) for name in names)
        assert logs["weight/labels"] == Linear(0.2, 0.8)(step / 4)
        assert logs["temperature/soft"] == Linear(4.0, 1.0)(step / 4)
    assert tracker.steps[1]["grad_norm"] > 0


def trained_for(tracker, folder, **changes):
    """A Trainer whose run that tracker has followed."""
    objective = Objective(
        {"labels": (Linear(0.2, 0.8), HardLabelTerm()), "soft": (1.0, SoftTargetTerm(Linear(4.0, 1.0)))}
    )
    evaluation = {"eval_dataset": rows_for("single_label"), "eval_strategy": "steps", "eval_steps": 2}
    trainer = trainer_for(folder, objective=objective, max_steps=4, report_to=[tracker], **evaluation, **changes)
    trainer.train()
    return trainer


def check_numbers(found, logs):
    """Every number of the logs is there, by the name that Transformers gives it for trackers.

    Args:
        found: name → step → value.
        logs: those of the Trainer. Trackio and W&B keep the last one, the summary of the run, in other places.
    """
    for tag in ("loss", "loss/labels", "loss/soft", "weight/labels", "temperature/soft", "grad_norm"):
        assert list(found[f"train/{tag}"]) == [1, 2, 3, 4], tag
    for tag in ("loss", "loss/labels", "loss/soft"):
        assert list(found[f"eval/{tag}"]) == [2, 4], tag
    for log in logs:
        for name, value in log.items():
            where = name.replace("eval_", "eval/") if name.startswith("eval_") else f"train/{name}"
            if name not in ("step", "epoch"):
                assert found[where][log["step"]] == pytest.approx(value, rel=1e-6), name
    assert all(found["train/temperature/soft"][step] == Linear(4.0, 1.0)(step / 4) for step in range(1, 5))
    assert all(value > 0 for value in found["train/grad_norm"].values())


def by_name(logs):
    """Name → step → value, of logs that hold the step."""
    found = {}
    for log in logs:
        for name, value in log.items():
            found.setdefault(name, {})[log["train/global_step"]] = value
    return found


def test_event_files_of_tensorboard(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    trainer = trained_for("tensorboard", tmp_path)
    (folder,) = (tmp_path / "runs").iterdir()
    events = accumulator(str(folder)).Reload()
    found = {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    check_numbers(found, trainer.state.log_history)
    assert {"args/text_summary", "model_config/text_summary"} <= set(events.Tags()["tensors"])
    (args,) = events.Tensors("args/text_summary")
    assert b'"temperature"' in args.tensor_proto.string_val[0]


def test_database_of_trackio(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported for the first time
    utils = pytest.importorskip("trackio.utils", reason="pip install trackio")
    trainer = trained_for("trackio", tmp_path, project=tmp_path.name)
    with closing(sqlite3.connect(utils.TRACKIO_DIR / f"{tmp_path.name}.db")) as database:
        logs = database.execute("SELECT metrics FROM metrics").fetchall()
        ((config,),) = database.execute("SELECT config FROM configs").fetchall()
    check_numbers(by_name(json.loads(log) for (log,) in logs), trainer.state.log_history[:-1])
    assert json.loads(config)["temperature"] == trainer.args.temperature


def test_offline_file_of_wandb(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="pip install wandb")
    for name, value in {"MODE": "offline", "DIR": str(tmp_path), "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    trainer = trained_for("wandb", tmp_path)
    wandb.finish()
    wandb.teardown()
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    records = list(map(wandb.proto.wandb_internal_pb2.Record.FromString, blocks(path.read_bytes())))
    logs = ({"/".join(item.nested_key): json.loads(item.value_json) for item in r.history.item} for r in records)
    check_numbers(by_name(log for log in logs if "train/global_step" in log), trainer.state.log_history[:-1])
    config = {item.key: item.value_json for record in records for item in record.config.update}
    assert json.loads(config["temperature"]) == trainer.args.temperature


def blocks(data):
    """What a file in LevelDB's log format holds, as W&B writes it: seven bytes, then parts of records."""
    whole, place, size = b"", 7, 2**15
    while place + 7 <= len(data):
        if size - place % size < 7:
            place += size - place % size
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        whole, place = whole + data[place + 7 : place + 7 + length], place + 7 + length
        if kind in (1, 4):  # a whole one, or the last part
            yield whole
            whole = b""


def test_what_does_not_move_is_in_the_configuration(tmp_path):
    """Trackers log the arguments once."""
    args = trainer_for(tmp_path, temperature=3.0, alpha=0.25).args.to_dict()
    assert args["temperature"] == 3.0 and args["alpha"] == 0.25

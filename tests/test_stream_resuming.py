"""A run over a stream goes on where it stopped: in any pass, with workers and processes, without reading again."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset, interleave_datasets
from torch.utils.data import IterableDataset

from hf_distill import stream_resuming
from hf_distill.checkpoints import write_manifest
from tests.processes import run_two_processes
from tests.streaming_processes import LAST_STEP, ROWS_OF_A_STEP, numbered_rows, streaming_trainer
from tests.test_resume import StopAt


NUM_ROWS = 44


@pytest.fixture(params=["stateful", "skipping"])
def way(request, monkeypatch):
    """With torchdata, and as if it were not installed."""
    if request.param == "skipping":
        monkeypatch.setattr(stream_resuming, "is_torchdata_stateful_dataloader_available", lambda: False)
    return request.param


def shards(num_rows=NUM_ROWS, buffer_size=1):
    return Dataset.from_list(numbered_rows(num_rows)).to_iterable_dataset(4).shuffle(seed=1, buffer_size=buffer_size)


def in_order():
    return Dataset.from_list(numbered_rows(NUM_ROWS)).to_iterable_dataset(4)


class WrittenDown(IterableDataset):
    """A stream that knows its place, and writes down every row that it makes."""

    def __init__(self, made):
        self.made, self.start, self.place = made, 0, -1

    def __iter__(self):
        rows = numbered_rows(NUM_ROWS)
        for index in range(self.start, len(rows)):
            self.place = index
            self.made.append(index)
            yield rows[index]
        self.start = 0

    def state_dict(self):
        return {"next": self.place + 1}

    def load_state_dict(self, state):
        self.start = state["next"]


def interrupted_and_resumed(output_dir, stream, stopped_at, after_stopping=None, **changes):
    """Weights and logs of a whole run, and of one in two parts."""
    whole = streaming_trainer(output_dir / "whole", stream(), **changes)
    whole.train()
    first = streaming_trainer(output_dir / "parts", stream(), save_steps=stopped_at, **changes)
    first.add_callback(StopAt(stopped_at))
    first.train()
    if after_stopping is not None:
        after_stopping(output_dir / "parts" / f"checkpoint-{stopped_at}")
    resumed = streaming_trainer(output_dir / "parts", stream(), save_steps=stopped_at, **changes)
    resumed.train(resume_from_checkpoint=True)
    return whole, resumed


def kept_place(checkpoint):
    return json.loads((checkpoint / "stream_0.json").read_text())


def check_equal(whole, resumed):
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    assert whole.state.global_step == resumed.state.global_step == LAST_STEP
    logs = [[log for log in trainer.state.log_history if "loss" in log] for trainer in (whole, resumed)]
    assert logs[0] == logs[1] and len(logs[0]) == LAST_STEP
    assert logs[0][0]["loss"] != logs[0][-1]["loss"]


@pytest.mark.slow
@pytest.mark.parametrize("stopped_at", [3, 14, 11], ids=["first pass", "second pass", "between passes"])
def test_a_resumed_run_is_exact_in_every_pass(tmp_path, way, stopped_at):
    """44 rows are 11 steps of two batches of two."""
    check_equal(*interrupted_and_resumed(tmp_path, shards, stopped_at))


@pytest.mark.slow
@pytest.mark.parametrize("stream", [shards, in_order])
def test_with_data_loader_workers(tmp_path, way, stream):
    check_equal(*interrupted_and_resumed(tmp_path, stream, 14, dataloader_num_workers=2))
    kept = kept_place(tmp_path / "parts" / "checkpoint-14")
    assert (kept["loader"] is not None) == (way == "stateful" and stream is in_order)


@pytest.mark.slow
def test_a_window_that_a_pass_leaves_out(tmp_path, way):
    """42 rows are 10 steps of two batches, and a batch that is left out."""
    check_equal(*interrupted_and_resumed(tmp_path, lambda: shards(42), 10))


def test_what_was_read_is_not_read_again(tmp_path, way):
    made = []

    def forget(checkpoint):
        made.clear()

    check_equal(*interrupted_and_resumed(tmp_path, lambda: WrittenDown(made), 6, forget))
    seen = 6 * ROWS_OF_A_STEP
    start = seen if way == "stateful" else 0
    assert made[: NUM_ROWS - start] == list(range(start, NUM_ROWS))


@pytest.mark.slow
@pytest.mark.parametrize(
    "stream",
    [
        lambda: shards(buffer_size=5),
        lambda: interleave_datasets([shards(28), shards(28, buffer_size=5)]),
        lambda: shards(buffer_size=5).map(lambda row: row).filter(lambda row: True),
    ],
    ids=["alone", "in a mixture", "within"],
)
def test_a_shuffle_buffer_is_filled_again(tmp_path, stream):
    """Its rows are in no state of a stream, so that one with a buffer is read from its start."""
    check_equal(*interrupted_and_resumed(tmp_path, stream, 3))
    assert kept_place(tmp_path / "parts" / "checkpoint-3")["loader"] is None


@pytest.mark.parametrize("state, kept", [({"a": [1]}, {"a": [1]}), ({"a": (1,)}, None), ({"a": object()}, None)])
def test_only_plain_data_is_kept(state, kept):
    assert stream_resuming._plain(state) == kept


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"dataloader_num_workers": 1}, {"dataloader_num_workers": 0}])
def test_other_workers_than_before_read_from_the_start(tmp_path, changes):
    first = streaming_trainer(tmp_path, in_order(), save_steps=3, max_steps=3, dataloader_num_workers=2)
    first.train()
    resumed = streaming_trainer(tmp_path, in_order(), max_steps=4, **changes)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 4


def test_a_checkpoint_without_a_place(tmp_path):
    """Of an earlier version: exact within the first pass."""

    def forget(checkpoint):
        (checkpoint / "stream_0.json").unlink()
        write_manifest(checkpoint)

    check_equal(*interrupted_and_resumed(tmp_path, shards, 3, forget))


@pytest.mark.slow
def test_a_checkpoint_of_each_pass(tmp_path):
    """Goes on with the next one."""
    whole = streaming_trainer(tmp_path / "whole", shards(), save_strategy="epoch")
    whole.train()
    resumed = streaming_trainer(tmp_path / "whole", shards(), save_strategy="epoch")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-11"))
    check_equal(whole, resumed)


def test_data_skip_can_be_ignored(tmp_path):
    """As Transformers has it: the resumed run reads the stream from its start."""
    made = []
    options = {"save_steps": 6, "ignore_data_skip": True}
    first = streaming_trainer(tmp_path, WrittenDown(made), **options)
    first.add_callback(StopAt(6))
    first.train()
    made.clear()
    streaming_trainer(tmp_path, WrittenDown(made), **options).train(resume_from_checkpoint=True)
    assert made[0] == 0


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("dispatches", [False, True])
def test_two_processes_share_a_stream(tmp_path, dispatches):
    """Each row is read once by one of them, and what they learn is what one process learns of the same batches."""
    run_two_processes(Path(__file__).with_name("streaming_processes.py"), tmp_path, int(dispatches))
    found = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    seen = [rank["rows of a pass"] for rank in found]
    assert sorted(seen[0] + seen[1]) == list(range(32)) and len(seen[0]) == len(seen[1]) == 16
    batches = [[rows[start : start + 4] for start in range(0, 16, 4)] for rows in seen]
    order = [row for pair in zip(*batches, strict=True) for batch in pair for row in batch]
    rows = numbered_rows(32)
    one = streaming_trainer(tmp_path / "one", [rows[index] for index in order], **ALONE)
    one.train()
    loss = one.evaluate(numbered_rows(11))["eval_loss"]
    for rank in found:
        assert dispatches == (rank["metrics"]["eval_loss"] == pytest.approx(loss, rel=1e-5))
        assert dispatches != ("they count twice" in rank["said"])
        for name, weight in one.model.state_dict().items():
            torch.testing.assert_close(rank["whole"][name], weight, rtol=1e-5, atol=1e-5, msg=name)
            assert torch.equal(rank["whole"][name], rank["resumed"][name]), name


ALONE = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "dropout": 0.0,
    "optim": "sgd",
    "max_steps": 8,
}
"""Two passes: in later ones `datasets` gives the shards in another order."""

import os
import signal

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_distill.checkpoints import StopOnSignal, StoppedBySignal, last_checkpoint, remove_broken_checkpoints


def put(folder, step, state="{}", ranks=0):
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_text("")
    if state is not None:
        (checkpoint / "trainer_state.json").write_text(state)
    for rank in range(ranks):
        (checkpoint / f"rng_state_{rank}.pth").write_text("")
    return checkpoint


def test_the_last_whole_checkpoint(tmp_path):
    assert last_checkpoint(tmp_path) is None
    whole = [put(tmp_path, step) for step in (5, 20, 100)]
    broken = [put(tmp_path, 110, None), put(tmp_path, 120, '{"global_step": 1')]
    put(tmp_path, "best")
    assert last_checkpoint(tmp_path) == whole[-1]
    remove_broken_checkpoints(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*whole, tmp_path / "checkpoint-best"])
    assert not any(each.exists() for each in broken)


def test_each_process_has_its_random_state(tmp_path):
    both = put(tmp_path, 10, ranks=2)
    put(tmp_path, 20, ranks=1)
    assert last_checkpoint(tmp_path, num_processes=2) == both
    assert last_checkpoint(tmp_path).name == "checkpoint-20"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stops_after_the_step_with_a_checkpoint(number, tmp_path):
    args, state, control = TrainingArguments(output_dir=tmp_path, use_cpu=True), TrainerState(), TrainerControl()
    before = signal.getsignal(number)
    stop = StopOnSignal()
    with stop.listening():
        stop.on_step_end(args, state, control)
        assert not (control.should_training_stop or control.should_save)
        os.kill(os.getpid(), number)
        stop.on_step_end(args, state, control)
        assert control.should_training_stop and control.should_save
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            signal.pause()
    assert signal.getsignal(number) is before


def test_says_what_stopped_it(tmp_path):
    stopped = StoppedBySignal(signal.SIGTERM, tmp_path)
    assert str(stopped) == f"stopped by SIGTERM; the run goes on from {tmp_path}"
    assert stopped.signal_number == 15

"""What each process of `test_a_signal_to_one_process_ends_all` runs: rank 1 is sent SIGTERM in its third step."""

import os
import signal
import sys
from pathlib import Path

from tests.test_preemption import SignalAt
from tests.tiny_trainers import trainer_for


def main(output_dir: Path) -> None:
    number = signal.SIGTERM if os.environ["RANK"] == "1" else 0
    trainer = trainer_for(
        output_dir, max_steps=9, per_device_train_batch_size=1, enable_jit_checkpoint=True, save_strategy="no"
    )
    trainer.add_callback(SignalAt(number, 2, "pre_optimizer_step"))
    trainer.train()
    (output_dir / f"rank{os.environ['RANK']}").write_text(str(trainer.state.global_step))
    sys.stdout.flush()
    os._exit(0)  # as in two_processes.py


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""A run that was interrupted and resumed ends bit for bit like one that was not."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertForMaskedLM, PreTrainedTokenizerFast, TrainerCallback, set_seed

from hf_distill import (
    DataCollatorForRowSeededMasking,
    DistillationTrainer,
    DistillationTrainingArguments,
    Linear,
    Objective,
)
from hf_distill.terms import HardLabelTerm, SoftTargetTerm
from tests.slow_cases import slow_but
from tests.tiny_models import VOCAB_SIZE, PaddingCollator, bert, model_for, rows_for


DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
LAST_STEP, INTERRUPTED_AT = 10, 6


class StopAt(TrainerCallback):
    """Ends training early, as if the machine had been taken away just after a checkpoint."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


def masking_collator():
    vocabulary = {"[PAD]": 0, "[MASK]": 1, "[UNK]": 2, **{f"w{i}": i for i in range(3, VOCAB_SIZE)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "[PAD]", "mask_token": "[MASK]", "unk_token": "[UNK]"}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    return DataCollatorForRowSeededMasking(wrapped, mlm_probability=0.4, seed=1)


def trainer_for(head, output_dir, **changes):
    """A student with dropout, a moving objective, accumulation, a scheduler, and logs out of step with checkpoints."""
    masked = head == "dynamically masked"
    student = bert(BertForMaskedLM, **DROPOUT) if masked else model_for(head, 1)
    rows = rows_for("masked" if masked else head, lengths=(3, 9, 4, 7, 5, 8, 6, 4, 7, 9, 5, 6, 8, 4))
    if masked:
        rows = [{"input_ids": row["input_ids"]} for row in rows]
    set_seed(0)
    return DistillationTrainer(
        model=student,
        teacher=model_for("masked" if masked else head, 2),
        objective=Objective(
            {"labels": (Linear(0.2, 0.8), HardLabelTerm()), "soft": (1.0, SoftTargetTerm(Linear(4.0, 1.0)))}
        ),
        args=DistillationTrainingArguments(
            output_dir=str(output_dir),
            max_steps=LAST_STEP,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            learning_rate=1e-2,
            lr_scheduler_type="cosine",
            logging_steps=4,
            save_steps=INTERRUPTED_AT,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            **changes,
        ),
        data_collator=masking_collator() if masked else PaddingCollator(),
        train_dataset=rows,
    )


def state_of(checkpoint: Path):
    """All that a checkpoint holds, as tensors and plain values."""
    optimizer = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"]
    return {
        "weights": load_file(checkpoint / "model.safetensors"),
        "optimizer": {
            f"{index}.{key}": value for index, moments in optimizer.items() for key, value in moments.items()
        },
        "scheduler": torch.load(checkpoint / "scheduler.pt", weights_only=True),
        "random": torch.load(checkpoint / "rng_state.pth", weights_only=False)["cpu"],
        "logs": json.loads((checkpoint / "trainer_state.json").read_text())["log_history"],
    }


@pytest.mark.parametrize("head", ["single_label", "causal", "masked", "dynamically masked"])
@pytest.mark.parametrize("workers", slow_but([0], [0, 2]))
def test_resumed_equals_uninterrupted(tmp_path, head, workers):
    """The checkpoint lies between two logs and in the middle of an epoch (4 steps an epoch, the last one short)."""
    changes = {"dataloader_num_workers": workers}
    trainer_for(head, tmp_path / "whole", **changes).train()
    interrupted = trainer_for(head, tmp_path / "parts", **changes)
    interrupted.add_callback(StopAt(INTERRUPTED_AT))
    interrupted.train()
    assert interrupted.state.global_step == INTERRUPTED_AT
    trainer_for(head, tmp_path / "parts", **changes).train(resume_from_checkpoint=True)

    whole, resumed = (state_of(tmp_path / run / f"checkpoint-{LAST_STEP}") for run in ("whole", "parts"))
    half = state_of(tmp_path / "parts" / f"checkpoint-{INTERRUPTED_AT}")
    assert any(not torch.equal(half["weights"][name], weight) for name, weight in whole["weights"].items())
    for part in ("weights", "optimizer"):
        assert whole[part].keys() == resumed[part].keys()
        for name, tensor in whole[part].items():
            assert torch.equal(tensor, resumed[part][name]), f"{part}: {name}"
    assert whole["scheduler"] == resumed["scheduler"]
    assert torch.equal(whole["random"], resumed["random"])
    assert [log["step"] for log in whole["logs"]] == [4, 8]
    assert whole["logs"] == resumed["logs"]
    assert {"loss", "loss/labels", "loss/soft", "weight/labels", "temperature/soft"} <= whole["logs"][1].keys()


def test_a_stream_is_resumed_exactly(tmp_path):
    """Within its first pass, over which the resumed run skips what it has seen."""
    rows = Dataset.from_list(rows_for("single_label", lengths=(3, 9, 4, 7, 5, 8, 6, 4, 7, 9, 5) * 4))

    def streaming(run):
        trainer = trainer_for("single_label", tmp_path / run)
        trainer.train_dataset = rows.to_iterable_dataset(num_shards=4).shuffle(seed=1, buffer_size=5)
        return trainer

    streaming("whole").train()
    interrupted = streaming("parts")
    interrupted.add_callback(StopAt(INTERRUPTED_AT))
    interrupted.train()
    streaming("parts").train(resume_from_checkpoint=True)
    whole, resumed = (state_of(tmp_path / run / f"checkpoint-{LAST_STEP}") for run in ("whole", "parts"))
    assert all(torch.equal(weight, resumed["weights"][name]) for name, weight in whole["weights"].items())
    assert whole["logs"] == resumed["logs"]


def test_epochs_have_masks_of_their_own(tmp_path):
    """Otherwise the equality above would hold for masks that never change."""
    trainer = trainer_for("dynamically masked", tmp_path)
    seen = []
    trainer.data_collator = RecordingCollator(trainer.data_collator, seen)
    trainer.train()
    masks_of_one_row = {mask for mask in seen if len(mask) == 3}
    assert len(masks_of_one_row) > 1


class RecordingCollator:
    """Writes down which tokens of each row were masked."""

    def __init__(self, collator, seen):
        self.collator, self.seen = collator, seen
        self.set_epoch = collator.set_epoch

    def __call__(self, rows):
        batch = self.collator(rows)
        for row, labels in zip(rows, batch["labels"], strict=True):
            self.seen.append(tuple((labels[: len(row["input_ids"])] != -100).tolist()))
        return batch

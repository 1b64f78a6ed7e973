"""What a step takes, against what it then takes."""

import ctypes
import logging
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from hf_distill import cache_teacher, preflight_report, step_cost
from hf_distill.memory import memory_estimate
from hf_distill.step_cost import StepCost
from tests.slow_cases import slow_but
from tests.tiny_models import PaddingCollator, rows_for
from tests.tiny_trainers import trainer_for


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")
VOCABULARY = 12_000


def resident(name):
    return int(re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text())[1]) * 1024


class PeakOfSteps(TrainerCallback):
    """The most that the process held in each step, above what it held before."""

    def __init__(self, before):
        self.before, self.peaks = before, []

    def on_step_begin(self, *args, **kwargs):
        REFERENCES.write_text("5")  # the peak begins anew

    def on_step_end(self, *args, **kwargs):
        self.peaks.append(resident("VmHWM") - self.before)


def decoder(width):
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 3, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=VOCABULARY))


@pytest.mark.skipif(not REFERENCES.is_file(), reason="the peak of resident memory is read where Linux has it")
@pytest.mark.parametrize(
    ("changes", "is_cached"),
    slow_but(
        [({}, False)],
        [
            ({}, False),
            ({"gradient_accumulation_steps": 2}, True),
            ({"activation_checkpointing": True}, True),
            ({"optim": "sgd"}, False),
        ],
    ),
)
def test_a_step_holds_what_was_said(tmp_path, changes, is_cached):
    """To 15 %: the student's weights, 3 times that for training them, a teacher, and a vocabulary in chunks.

    In a process of its own, since what other tests have left behind changes what the system gives.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other:
        step, peak = other.submit(step_and_peak, tmp_path, changes, is_cached).result()
    assert step.is_chunked
    assert step.peak == pytest.approx(peak, rel=0.15)
    assert step.num_steps == 2 and step.seconds > 0


def step_and_peak(tmp_path, changes, is_cached):
    """What was said of a step, and the bytes that one then held."""
    libc = ctypes.CDLL("libc.so.6")
    for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):  # what is let go is given back at once
        libc.mallopt(option, 2**16)
    rows = [{"input_ids": [(row + token) % 500 for token in range(72)]} for row in range(8)]
    rows = [{**row, "attention_mask": [1] * 72, "labels": row["input_ids"]} for row in rows]
    options = {"rows": rows, "per_device_train_batch_size": 4, "max_steps": 2, "preflight": False, **changes}
    trainer_for(tmp_path, "causal").train()  # what is loaded once
    teacher = decoder(128)
    if is_cached:
        teacher = cache_teacher(teacher, rows, tmp_path / "cache", data_collator=PaddingCollator(), top_k=8)
    libc.malloc_trim(0)
    before = resident("VmRSS") - (0 if is_cached else memory_estimate(teacher).student)
    trainer = trainer_for(tmp_path, "causal", student=decoder(256), teacher=teacher, **options)
    peaks = PeakOfSteps(before)
    trainer.add_callback(peaks)
    said = []
    trainer.add_callback(Before(lambda: said.append(preflight_report(trainer).step)))
    trainer.train()
    (step,) = said
    return step, max(peaks.peaks)


class Before(TrainerCallback):
    """Calls when training begins, with everything in place but the optimizer's states."""

    def __init__(self, call):
        self.call = call

    def on_train_begin(self, *args, **kwargs):
        self.call()


def test_gradients_logs_and_modes_are_put_back(tmp_path):
    trainer = trainer_for(tmp_path)
    weight = next(trainer.model.parameters())
    weight.grad = torch.full_like(weight, 3.0)
    trainer._log_window += 2.0
    trainer.model.train()
    assert preflight_report(trainer).step.to_come > 0
    assert (weight.grad == 3.0).all() and (trainer._log_window == 2.0).all() and trainer.model.training
    assert [each.grad for each in trainer.model.parameters()][1:] == [None] * (
        len(list(trainer.model.parameters())) - 1
    )


def test_gradients_that_are_used_at_once_are_not_tried(tmp_path):
    trainer = trainer_for(tmp_path)
    calls = []
    next(trainer.model.parameters()).register_post_accumulate_grad_hook(calls.append)
    assert preflight_report(trainer).step is None
    assert calls == []


def test_a_step_that_does_not_fit_is_warned_of_before_it_is_taken(tmp_path, monkeypatch, capsys):
    said = []
    monkeypatch.setattr(logging.getLogger("hf_distill.rehearsal"), "warning", said.append)
    monkeypatch.setattr(step_cost, "free_bytes", lambda device: 2**10)
    report = preflight_report(trainer_for(tmp_path, rows=rows_for("single_label")))
    assert not report.step.fits and report.step.is_chunked is None
    (warning,) = (each for each in said if "needs" in each)
    assert re.search(r"A step needs [\d,]+ MiB more than is held now, and cpu has 0 MiB left: .*of 4 rows", warning)
    assert "are to come, and 0 are free" in capsys.readouterr().out


def test_what_is_said():
    step = StepCost(peak=3 * 2**30, to_come=2**30, free=2**31, seconds=1.5, num_steps=2_400)
    assert step.fits
    assert str(step) == (
        "a step at its peak, MiB: 3,072, of which 1,024 are to come, and 2,048 are free\n"
        "a step takes 1.5 seconds; 2,400 steps take 1.0 hours"
    )
    for is_chunked, logits in ((True, "a chunk at a time"), (False, "whole")):
        assert f"2,048 are free (logits {logits})\n" in str(replace(step, is_chunked=is_chunked))
    unknown = StepCost(peak=2**20, to_come=2**20, free=None, seconds=0.25, num_steps=0)
    assert unknown.fits
    assert str(unknown) == "a step at its peak, MiB: 1, of which 1 are to come\na step takes 0.25 seconds"

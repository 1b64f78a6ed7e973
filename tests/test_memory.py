"""What a process holds is what was counted beforehand."""

import ctypes
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from hf_distill import DistillationTrainingArguments, memory_estimate
from tests.tiny_trainers import trainer_for


def linear(num_weights):
    return nn.Linear(num_weights, 1, bias=False)


@pytest.mark.parametrize(
    "optim, of_a_weight", [("adamw_torch", 8), ("adamw_bnb_8bit", 2), ("lion_32bit", 4), ("sgd", 0), ("adafactor", 0)]
)
def test_every_part_is_counted(tmp_path, optim, of_a_weight):
    student = nn.Sequential(linear(1000), linear(100).requires_grad_(False))
    teachers = [linear(300).to(torch.bfloat16), linear(50)]
    args = DistillationTrainingArguments(output_dir=str(tmp_path), optim=optim, use_cpu=True)
    memory = memory_estimate(student, teachers, args, num_positions=6, num_classes=5)
    assert (memory.student, memory.gradients, memory.optimizer) == (4400, 4000, 1000 * of_a_weight)
    assert (memory.teacher, memory.logits) == (2 * 300 + 4 * 50, 6 * 5 * 16)
    assert memory.total == sum((4400, 4000, 1000 * of_a_weight, 800, 480))


def test_what_is_split_over_processes_and_what_is_not():
    one, four = (
        memory_estimate(linear(1000), [linear(400)], num_positions=6, num_classes=5, num_shards=number)
        for number in (1, 4)
    )
    assert (four.student, four.gradients, four.optimizer, four.teacher) == (1000, 1000, 2000, 400)
    assert four.logits == one.logits


def test_what_shards_are_gathered_into():
    """A block of the student four times, one of the teacher twice, and what is in no block once."""
    head = [nn.Linear(7, 3, bias=False)]
    student, wide, narrow = (
        nn.Sequential(nn.ModuleList(linear(size) for _ in range(3)), *head) for size in (1000, 2500, 900)
    )
    for teachers, expected in [([], 4 * 4000 + 84), ([wide, narrow], 2 * 10_000 + 84), ([narrow], 4 * 4000 + 84)]:
        assert memory_estimate(student, iter(teachers)).gathered == 0
        sharded = memory_estimate(student, iter(teachers), num_shards=2)
        assert sharded.gathered == expected
        assert sharded.total == sharded.student * 4 + sharded.teacher + expected


def test_models_without_weights():
    with torch.device("meta"):
        model = linear(10**12)
    assert memory_estimate(model).total == 16 * 10**12


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="resident memory is read where Linux has it")
def test_a_measured_run_holds_what_was_counted(tmp_path):
    """To a tenth: 144 MB of student, its gradients and AdamW, and 87 MB of a teacher."""
    trainer_for(tmp_path).train()  # what is loaded once
    before = resident_bytes()
    student, teacher = (bert(layers) for layers in (2, 6))
    trainer = trainer_for(tmp_path, student=student, teacher=teacher, preflight=False)
    trainer.train()
    held = [gradient_and_states(parameter, trainer.optimizer) for parameter in student.parameters()]
    expected = memory_estimate(student, [teacher], trainer.args)
    assert expected.gradients + expected.optimizer == pytest.approx(sum(held), rel=0.001)
    assert resident_bytes() - before == pytest.approx(expected.total - expected.gradients, rel=0.1)


def bert(layers):
    sizes = {"hidden_size": 512, "num_attention_heads": 4, "intermediate_size": 2048, "vocab_size": 5000}
    return BertForSequenceClassification(BertConfig(**sizes, num_hidden_layers=layers, num_labels=3))


def gradient_and_states(parameter, optimizer):
    """The gradient is no longer there after a step, but was as large as the weight."""
    states = [state for state in optimizer.state[parameter].values() if torch.is_tensor(state) and state.ndim]
    return parameter.nbytes + sum(state.nbytes for state in states)


def resident_bytes():
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

"""A teacher is one method."""

import pytest
import torch
from accelerate import Accelerator

from hf_distill.teachers import Teacher
from hf_distill.types import Signals


class Constant(Teacher):
    input_names = frozenset({"input_ids"})

    def signals(self, batch):
        return Signals(torch.zeros(len(batch["input_ids"]), 3))


def test_needs_no_place():
    teacher = Constant()
    teacher.prepare(Accelerator(cpu=True))
    assert teacher.signals({"input_ids": torch.zeros(2, 4)}).logits.shape == (2, 3)


def test_the_base_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Teacher()

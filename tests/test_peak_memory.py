"""What a call holds at its peak, against sums of what it makes."""

import psutil
import torch
from torch import nn

from hf_distill import peak_memory
from hf_distill.peak_memory import free_bytes, peak_bytes


CPU = torch.device("cpu")


def test_what_is_held_at_once_is_added_up_and_what_was_let_go_is_not():
    def call():
        first = torch.ones(1000)  # 4,000 bytes
        second = first + 1  # 8,000
        second.mul_(2)
        first.view(10, 100)
        del first, second
        torch.ones(1500)  # 6,000

    assert peak_bytes(call, CPU) == 8000


def test_what_was_there_before_is_not_counted():
    there = torch.ones(1000)
    assert peak_bytes(lambda: there.view(10, 100).mul_(2), CPU) == 0


def test_a_backward_pass_holds_activations_and_gradients():
    """Two layers of 50 x 50 on 200 rows: what the second has read and the gradient by it, one by a weight, a sum and
    the 1 that it is differentiated by."""
    layers = nn.Sequential(nn.Linear(50, 50, bias=False), nn.Linear(50, 50, bias=False))
    rows = torch.ones(200, 50)
    assert peak_bytes(lambda: layers(rows).sum().backward(), CPU) == 4 * (2 * 200 * 50 + 50 * 50 + 2)


def test_what_a_device_has_left():
    assert 0 < free_bytes(CPU) <= psutil.virtual_memory().total
    assert free_bytes(torch.device("meta")) is None


def test_a_container_may_have_less(tmp_path, monkeypatch):
    monkeypatch.setattr(peak_memory, "CONTAINER", tmp_path)
    (tmp_path / "memory.current").write_text("3000\n")
    (tmp_path / "memory.stat").write_text("anon 1500\ninactive_file 1000\n")
    (tmp_path / "memory.max").write_text("5000\n")
    assert free_bytes(CPU) == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(CPU) > 2**20

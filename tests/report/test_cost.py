"""What a model costs, counted by hand."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertForMaskedLM

from hf_distill.report.cost import cost_of, flops_of, peak_memory, resized, weights_size
from tests.tiny_models import bert, llama


def test_flops_of_a_linear_layer():
    layer = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    assert flops_of(layer, {"input": torch.ones(3, 8)}) == 3 * 2 * (8 * 16 + 16 * 4)


def test_attention_is_counted():
    model, length = llama(), 12
    q = k = v = o = 16 * 16
    per_token = 2 * (q + k + v + o + 3 * 16 * 24 + 16 * 40)
    attention = 2 * 2 * length * length * 16
    inputs = {"input_ids": torch.ones(1, length, dtype=torch.long)}
    with torch.no_grad():
        counted = flops_of(model, inputs)
    assert counted == pytest.approx(length * per_token + attention, rel=0.02)


def test_the_size_is_that_of_the_file(tmp_path):
    model = bert(BertForMaskedLM)  # its decoder is its embedding
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors").values()
    assert weights_size(model) == sum(tensor.nbytes for tensor in tensors)


def test_peak_memory_of_known_tensors():
    layer = torch.nn.Linear(1000, 1000, bias=False)
    with torch.no_grad():
        peak = peak_memory(layer, {"input": torch.ones(500, 1000)})
    assert peak == pytest.approx(4 * (1000 * 1000 + 500 * 1000), rel=0.05)


def test_rows_and_tokens_are_repeated_or_cut():
    inputs = {
        "input_ids": torch.tensor([[1, 2, 3], [4, 5, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    }
    inputs |= {"decoder_input_ids": torch.tensor([[7], [8]]), "use_cache": False}
    made = resized(inputs, 3, 5)
    assert made["input_ids"].tolist() == [[1, 2, 3, 1, 2], [4, 5, 0, 4, 5], [1, 2, 3, 1, 2]]
    assert made["attention_mask"].tolist() == [[1] * 5] * 3
    assert made["decoder_input_ids"].tolist() == [[7], [8], [7]] and made["use_cache"] is False
    assert resized(inputs, 1, 2)["input_ids"].tolist() == [[1, 2]]


def test_every_size_is_timed():
    model = bert().eval()
    cost = cost_of(model, {"input_ids": torch.ones(2, 4, dtype=torch.long)}, (1, 2), (4, 8))
    assert [(t.batch_size, t.length) for t in cost.timings] == [(1, 4), (2, 4), (1, 8), (2, 8)]
    assert all(0 < t.p50_ms <= t.p95_ms and t.rows_per_second > 0 for t in cost.timings)
    assert cost.parameters == model.num_parameters()
    assert cost.flops_per_row > 0 and cost.peak_memory_bytes > cost.weights_bytes
    assert cost_of(model, None).timings == ()

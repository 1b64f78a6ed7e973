"""A sharded model answers as a whole one does, and one block of it is gathered at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hf_distill import OnlineTeacher, head_of
from hf_distill.feature_reading.stacks import stacks_of
from hf_distill.sharding import units_of
from tests.architectures import TASKS, batch_of, model_of
from tests.processes import run_two_processes
from tests.tiny_models import PaddingCollator, model_for, rows_for


TIED = "masked"
"""A model whose head has the weight of its embeddings, which are in a block that Transformers names."""


def teachers() -> Iterator[tuple[str, Any]]:
    for architecture in TASKS:
        yield architecture, model_of(architecture, 4).double()
    yield TIED, model_for(TIED, 4).double()


def batch_for(name: str) -> dict[str, Any]:
    return PaddingCollator()(rows_for(TIED)) if name == TIED else batch_of(name)


def num_weights(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.slow
@pytest.mark.distributed
def test_teachers_of_many_architectures(tmp_path):
    run_two_processes(Path(__file__).with_name("sharded_models.py"), tmp_path)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    for name, model in teachers():
        expected = OnlineTeacher(model, head_of(model)).signals(batch_for(name)).logits
        all_but_one = sum(num_weights(stack.blocks[1:]) for stack in stacks_of(model).values())
        assert all_but_one > num_weights(model) / 4
        for found in ranks:
            for logits in found[name]["logits"]:
                torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5, msg=name)
            assert found[name]["share"] < 0.6, name  # of the weights: no process holds the teacher whole
            assert 0 < found[name]["largest"] <= num_weights(model) - all_but_one, name


def test_blocks_and_what_is_as_large():
    llama = model_of("llama", 2)
    assert units_of(llama) == [*llama.model.layers, llama.model.embed_tokens, llama.lm_head]
    distilbert = model_of("distilbert", 2)
    assert units_of(distilbert) == [
        *distilbert.distilbert.transformer.layer,
        distilbert.distilbert.embeddings.word_embeddings,
    ]
    bert = model_of("bert", 2)
    assert units_of(bert) == [bert.bert.embeddings, *bert.bert.encoder.layer]


def test_what_is_shared_stays_with_the_rest():
    masked = model_for(TIED, 2)
    assert units_of(masked) == [*masked.bert.encoder.layer]
    lists = nn.ModuleDict({"stages": nn.ModuleList([nn.ModuleList([nn.Linear(2, 2)]), nn.Linear(2, 2)])})
    assert units_of(lists) == [lists["stages"][0][0], lists["stages"][1]]
    lists["stages"][1].weight = lists["stages"][0][0].weight
    assert units_of(lists) == []

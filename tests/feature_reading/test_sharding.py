"""Under FSDP2 the learned parts are sharded, and synchronised, as the student's own weights are."""

from pathlib import Path

import pytest
import torch

from hf_distill.feature_reading import FeatureReader
from hf_distill.terms.projection import LearnedValues
from hf_distill.types import Feature, Unit
from tests.architectures import batch_of, model_of
from tests.processes import run_two_processes


FEATURES = [
    Feature("hidden_states", 1, projection="p"),
    Feature("hidden_states", 1, projection="v"),
    Feature("hidden_states", 2),
    Feature("queries", 2),
]


def student_with_reader():
    model = model_of("bert", 2).double().train()
    torch.manual_seed(0)
    parts = {"p": torch.nn.Linear(16, 3), "v": LearnedValues(torch.randn(5))}
    reader = FeatureReader(model, FEATURES, parts)
    reader.attach()
    return model, reader


def loss_of(model, reader):
    batch = batch_of("bert")
    outputs, features = reader.call(model, batch, {Unit.TOKEN: batch["attention_mask"].bool()})
    return outputs.logits.square().sum() + sum(feature.square().sum() for feature in features.values())


@pytest.mark.slow
@pytest.mark.distributed
def test_a_sharded_student_has_the_same_gradients(tmp_path):
    run_two_processes(Path(__file__).with_name("sharded_student.py"), tmp_path)
    model, reader = student_with_reader()
    loss_of(model, reader).backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert {f"_distillation.{name}" for name in ("p.weight", "p.bias", "v.values")} <= expected.keys()
    for rank in range(2):
        saved = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert saved["gradients"].keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(saved["gradients"][name], gradient, msg=name)
        parts = reader.parts.state_dict() if rank == 0 else {}
        assert saved["parts"].keys() == parts.keys()
        assert all(torch.equal(part, saved["parts"][name]) for name, part in parts.items())
        assert saved["names"] == list(model.state_dict())

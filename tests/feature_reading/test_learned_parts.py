"""Learned parts are parameters of the student, and no part of its state."""

import torch
from torch import nn

from hf_distill.feature_reading.learned_parts import attach_parts, detach_parts


def student():
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def test_parts_are_trained_with_the_model_and_saved_without():
    model, parts = student(), nn.ModuleDict({"p": nn.Linear(2, 2)})
    names = list(model.state_dict())
    handles = attach_parts(model, parts)
    assert list(model.state_dict()) == names
    assert list(nn.ModuleDict({"outer": model}).state_dict()) == [f"outer.{name}" for name in names]
    assert {id(parameter) for parameter in parts.parameters()} <= {id(parameter) for parameter in model.parameters()}
    for handle in handles:
        handle.remove()
    detach_parts(model)
    assert list(model.state_dict()) == names == [name for name, _ in model.named_parameters()]


def test_a_state_without_parts_lacks_nothing_and_leaves_them_alone():
    model, parts = student(), nn.ModuleDict({"p": nn.Linear(2, 2)})
    state, weight = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}, parts["p"].weight
    attach_parts(model, parts)
    before = weight.clone()
    assert model.load_state_dict(state, strict=True).missing_keys == []
    assert torch.equal(weight, before)
    assert model[0].weight.abs().sum() == 0
    assert model.load_state_dict({}, strict=False).missing_keys == list(state)

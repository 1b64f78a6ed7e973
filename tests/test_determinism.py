"""One seed gives one result, whatever was drawn before, with workers, learned parts and balanced weights."""

import pytest
import torch

from hf_distill import Objective
from hf_distill.terms import HardLabelTerm, HiddenStateTerm, SoftTargetTerm
from tests.architectures import model_of
from tests.test_feature_training import trainer_of
from tests.tiny_trainers import loss_logs


def result(output_dir, seed=3, **changes):
    """Weights, learned parts and logs; the student is made by the Trainer, with dropout, from its seed."""
    terms = {"labels": HardLabelTerm(), "soft": SoftTargetTerm(), "hidden": HiddenStateTerm()}
    balance = changes.pop("weights", None)
    objective = Objective(
        {name: (1.0, term) for name, term in terms.items()}, **({"weights": balance} if balance else {})
    )

    def student():
        model = model_of("bert", 2)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.1
        return model

    trainer = trainer_of(
        output_dir,
        student=None,
        model_init=student,
        objective=objective,
        max_steps=4,
        seed=seed,
        train_sampling_strategy="random",
        **changes,
    )
    trainer.train()
    parts = trainer._readers[0].parts.state_dict()
    return {**trainer.model.state_dict(), **{f"learned {name}": part for name, part in parts.items()}}, loss_logs(
        trainer
    )


CASES = {
    "plain": {},
    "workers": {"dataloader_num_workers": 2},
    "balanced": {"weights": "balanced"},
    "accumulated": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_one_seed_gives_one_result(tmp_path, case):
    weights, logs = result(tmp_path / "one", **CASES[case])
    torch.rand(7)  # what another part of the program drew
    same, same_logs = result(tmp_path / "two", **CASES[case])
    assert logs == same_logs
    assert any(name.startswith("learned") for name in weights)
    assert all(torch.equal(weight, same[name]) for name, weight in weights.items())


def test_workers_change_nothing(tmp_path):
    weights, _ = result(tmp_path / "one")
    same, _ = result(tmp_path / "two", dataloader_num_workers=2)
    assert all(torch.equal(weight, same[name]) for name, weight in weights.items())


def test_another_seed_gives_another_result(tmp_path):
    weights, logs = result(tmp_path / "one")
    other, other_logs = result(tmp_path / "two", seed=4)
    assert logs != other_logs
    assert any(not torch.equal(weight, other[name]) for name, weight in weights.items())

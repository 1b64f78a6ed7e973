"""A repository with the model's code loads where this package is not installed."""

import os
import subprocess
import sys

import pytest
import torch

from hf_distill.models.encoder_lm import (
    EncoderLMConfig,
    EncoderLMForCausalLM,
    EncoderLMForMaskedLM,
    EncoderLMForSequenceClassification,
    EncoderLMModel,
)
from tests.models.encoder_lm.tiny_encoders import output, random_tokens, tiny


REPOSITORIES = {
    "AutoModel": (EncoderLMModel, {"position_embedding_type": "rotary", "pre_norm": True}),
    "AutoModelForMaskedLM": (EncoderLMForMaskedLM, {}),
    "AutoModelForCausalLM": (EncoderLMForCausalLM, {"position_embedding_type": "learned"}),
    "AutoModelForSequenceClassification": (EncoderLMForSequenceClassification, {"classifier_pooling": "mean"}),
}

ELSEWHERE = """
import sys
sys.modules["hf_distill"] = None
import torch, transformers
found = {}
for name in sys.argv[1:]:
    model = getattr(transformers, name).from_pretrained(name, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model).__module__
    outputs = model(torch.load("tokens.pt"))
    found[name] = outputs.logits if "logits" in outputs else outputs.last_hidden_state
    if name == "AutoModelForCausalLM":
        found["generated"] = model.generate(torch.load("tokens.pt"), max_new_tokens=5, do_sample=False)
torch.save(found, "found.pt")
"""


@pytest.fixture
def registered(monkeypatch):
    """The classes with the Auto class that their files name, for the time of the test."""
    monkeypatch.setattr(EncoderLMConfig, "_auto_class", None)
    EncoderLMConfig.register_for_auto_class()
    for auto_class, (model_class, _) in REPOSITORIES.items():
        monkeypatch.setattr(model_class, "_auto_class", None)
        model_class.register_for_auto_class(auto_class)


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
def test_loads_elsewhere(tmp_path):
    tokens = random_tokens(2, 6)
    torch.save(tokens, tmp_path / "tokens.pt")
    expected = {}
    for auto_class, (model_class, options) in REPOSITORIES.items():
        model = tiny(model_class, **options)
        model.save_pretrained(tmp_path / auto_class)
        expected[auto_class] = output(model, input_ids=tokens)
        files = {path.name for path in (tmp_path / auto_class).glob("*.py")}
        assert files == {"configuration_encoder_lm.py", "modeling_encoder_lm.py"}
        if model_class is EncoderLMForCausalLM:
            expected["generated"] = model.generate(tokens, max_new_tokens=5, do_sample=False)

    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    subprocess.run(
        [sys.executable, "-I", "-W", "error::FutureWarning", "-c", ELSEWHERE, *REPOSITORIES],
        cwd=tmp_path,
        env=environment,
        check=True,
    )
    found = torch.load(tmp_path / "found.pt")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name

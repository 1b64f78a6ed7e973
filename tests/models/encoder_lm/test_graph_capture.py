"""`torch.export` and `torch.compile`."""

import pytest
import torch

from hf_distill.models.encoder_lm import EncoderLMForCausalLM, EncoderLMModel
from tests.models.encoder_lm.tiny_encoders import (
    HEADS,
    LANGUAGE_MODELS,
    POSITIONS,
    labels_for,
    output,
    padded,
    random_tokens,
    tiny,
)
from tests.slow_cases import slow_but


CASES = [(head, "sinusoidal") for head in HEADS]
CASES += [(head, positions) for head in LANGUAGE_MODELS for positions in POSITIONS if positions != "sinusoidal"]


def batch_of(lengths, seed=0):
    batch = padded(lengths, seed=seed)
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}


# The recording of outputs, which is Transformers', keeps its state in a global while it is traced.
@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects:UserWarning")
@pytest.mark.parametrize("strict", slow_but([False], [False, True]))
@pytest.mark.parametrize("model_class", [EncoderLMModel, *HEADS])
def test_export(model_class, strict):
    model = tiny(model_class, use_cache=False)
    exported = torch.export.export(model, (), batch_of((6, 4)), strict=strict).module()
    for seed in (0, 1):
        batch = batch_of((6, 2), seed)
        assert torch.allclose(output(exported, **batch), output(model, **batch), atol=1e-6)


@pytest.mark.parametrize(("model_class", "position_type"), CASES)
def test_export_of_any_shape(model_class, position_type):
    model = tiny(model_class, use_cache=False, position_embedding_type=position_type, pre_norm=True)
    rows, length = torch.export.Dim("rows", min=2, max=8), torch.export.Dim("length", min=2, max=16)
    shapes = {"input_ids": {0: rows, 1: length}, "attention_mask": {0: rows, 1: length}}
    program = torch.export.export(model, (), batch_of((6, 4, 3)), dynamic_shapes=shapes, strict=False)
    for lengths in ((6, 4, 3), (9, 2), (3, 3, 1, 2)):
        batch = batch_of(lengths)
        assert torch.allclose(output(program.module(), **batch), output(model, **batch), atol=1e-5)


@pytest.mark.parametrize(("model_class", "position_type"), slow_but(CASES[:1] + CASES[-1:], CASES))
def test_compiled_training(model_class, position_type):
    """One graph, the same loss, the same gradients."""
    tokens = random_tokens(3, 6)
    found = []
    for compiled in (False, True):
        torch.compiler.reset()
        model = tiny(model_class, position_embedding_type=position_type, use_cache=False)
        call = torch.compile(model, backend="aot_eager", fullgraph=True) if compiled else model
        loss = call(tokens, **labels_for(model, tokens)).loss
        loss.backward()
        found.append((loss, [parameter.grad for parameter in model.parameters()]))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-6)
    for plain, other in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(plain, other, atol=1e-5)


@pytest.mark.slow
def test_compiled_for_several_lengths():
    torch.compiler.reset()
    model = tiny(EncoderLMForCausalLM, use_cache=False)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    for length in (4, 5, 7):
        batch = batch_of((length, length - 1))
        assert torch.allclose(output(compiled, **batch), output(model, **batch), atol=1e-5)

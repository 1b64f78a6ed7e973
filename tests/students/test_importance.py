"""Scores are gradients of gates that somebody else puts into the model, and products in plain loops."""

import copy

import pytest
import torch
from transformers import BertModel

from hf_distill.errors import ConfigurationError, MissingInputError
from hf_distill.students.importance import Slices, magnitudes, taylor_scores
from tests import tiny_models
from tests.students import teachers
from tests.students.teachers import TEACHERS, inputs_of


def labelled(model):
    inputs = inputs_of(model)
    return inputs | {"labels": inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)}


@pytest.mark.parametrize(
    ("name", "heads_read", "neurons_read"),
    [
        ("bert", "bert.encoder.layer.1.attention.output.dense", "bert.encoder.layer.1.output.dense"),
        ("llama", "model.layers.1.self_attn.o_proj", "model.layers.1.mlp.down_proj"),
    ],
)
def test_scores_are_the_gradients_of_gates(name, heads_read, neurons_read):
    """Equation 2 of Michel et al. with a gate in the model, each batch apart."""
    teacher = TEACHERS[name](2).double()
    batches = [labelled(teacher), {key: value.flip(0)[:1] for key, value in labelled(teacher).items()}]
    num_heads = teacher.config.num_attention_heads
    kinds = [Slices(((f"{heads_read}.weight", 1),), num_heads), Slices(((f"{neurons_read}.weight", 1),), 24)]
    found = taylor_scores(teacher, kinds, iter(batches))
    for path, size, scores in ((heads_read, num_heads, found[0]), (neurons_read, 24, found[1])):
        expected = torch.zeros(size, dtype=torch.double)
        for batch in batches:
            gate = torch.ones(size, dtype=torch.double, requires_grad=True)
            gated = teacher.get_submodule(path).register_forward_pre_hook(
                lambda module, args, gate=gate: (args[0] * gate.repeat_interleave(args[0].shape[-1] // len(gate)),)
            )
            expected += torch.autograd.grad(teacher(**batch).loss, gate)[0].abs() / len(batches)
            gated.remove()
        torch.testing.assert_close(scores, expected)
        assert scores.min() > 0


def test_scores_of_several_tensors_in_plain_loops():
    teacher = TEACHERS["bert"](1).double()
    weight, bias = (f"bert.encoder.layer.0.intermediate.dense.{part}" for part in ("weight", "bias"))
    (found,) = taylor_scores(teacher, [Slices(((weight, 0), (bias, 0)), 12)], [labelled(teacher)])
    teacher(**labelled(teacher)).loss.backward()
    weights, biases = teacher.get_parameter(weight), teacher.get_parameter(bias)
    for unit in range(12):
        expected = 0.0
        for row in (2 * unit, 2 * unit + 1):
            expected += biases[row] * biases.grad[row]
            for column in range(16):
                expected += weights[row, column] * weights.grad[row, column]
        assert found[unit].item() == pytest.approx(abs(expected.item()))


def test_sizes_in_plain_loops():
    teacher = TEACHERS["bert"](1)
    prefix = "bert.encoder.layer.0"
    writes = Slices(((f"{prefix}.intermediate.dense.weight", 0), (f"{prefix}.intermediate.dense.bias", 0)), 24)
    reads = Slices(((f"{prefix}.output.dense.weight", 1),), 24)
    found = magnitudes(teacher, [writes, reads])
    layer = teacher.bert.encoder.layer[0]
    for unit in range(24):
        written = sum(w**2 for w in layer.intermediate.dense.weight[unit].tolist())
        written += layer.intermediate.dense.bias[unit].item() ** 2
        read = sum(w**2 for w in layer.output.dense.weight[:, unit].tolist())
        assert found[unit].item() == pytest.approx((written * read) ** 0.5, rel=1e-5)


def test_the_model_stays_as_it_was():
    teacher = teachers.llama(2)
    teacher.train()
    teacher.model.layers[0].eval()
    teacher.lm_head.weight.requires_grad = False
    before = copy.deepcopy(teacher.state_dict()), [module.training for module in teacher.modules()]
    kinds = [Slices((("lm_head.weight", 1),), 16), Slices((("model.layers.0.mlp.up_proj.weight", 0),), 24)]
    scores = taylor_scores(teacher, kinds, [labelled(teacher)])
    assert all(score.min() > 0 for score in scores)
    assert all(torch.equal(teacher.state_dict()[name], tensor) for name, tensor in before[0].items())
    assert [module.training for module in teacher.modules()] == before[1]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not teacher.lm_head.weight.requires_grad


def test_no_batch_and_no_loss_are_refused():
    teacher = TEACHERS["bert"](1)
    kinds = [Slices((("bert.encoder.layer.0.output.dense.weight", 1),), 24)]
    with pytest.raises(ConfigurationError, match="importance_data= holds 0 batches"):
        taylor_scores(teacher, kinds, [])
    with pytest.raises(MissingInputError, match=r"no loss for a batch .* with \['attention_mask', 'input_ids'\]"):
        taylor_scores(teacher, kinds, [inputs_of(teacher)])
    headless = tiny_models.bert(BertModel)
    with pytest.raises(MissingInputError, match="BertModel computes no loss"):
        taylor_scores(headless, [Slices((("encoder.layer.0.output.dense.weight", 1),), 24)], [inputs_of(headless)])

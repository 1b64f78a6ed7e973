"""Where the units of an architecture are: every row and column of a layer's projections belongs to some."""

import pytest
from torch import nn

from hf_distill.errors import UnsupportedModelError
from hf_distill.students.width_families import FAMILIES, layers_of
from tests.students.test_width import NARROW


def test_every_family_is_among_those_that_are_cut_in_tests():
    assert {make().config.model_type for make in NARROW.values()} == FAMILIES.keys()


@pytest.mark.parametrize("name", NARROW)
def test_units_fill_their_tensors(name):
    model = NARROW[name]()
    tensors = model.state_dict()
    layers = layers_of(model)
    assert len(layers) == model.config.num_hidden_layers
    for layer in layers:
        for units in (*layer.heads, *layer.key_value_heads, *layer.neurons):
            assert units.places
            for tensor_name, axis in units.places:
                assert tensors[tensor_name].shape[axis] % units.num_units == 0
        assert layer.heads[-1].places[0][1] == layer.neurons[-1].places[0][1] == 1


def test_a_layer_that_was_changed_is_refused():
    model = NARROW["bert"]()
    model.bert.encoder.layer[1].output.dense = nn.Sequential(nn.Linear(24, 16))
    with pytest.raises(
        UnsupportedModelError,
        match=r"BertForSequenceClassification has no bert\.encoder\.layer\.1\.output\.dense\.weight",
    ):
        layers_of(model)

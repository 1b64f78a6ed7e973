"""How long a row a model can read."""

from torch import nn
from transformers import (
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5EncoderModel,
    XLNetConfig,
    XLNetModel,
)

from hf_distill.position_tables import has_position_table, max_positions
from tests.tiny_models import SIZES, bert, llama


def test_a_table_ends():
    model = bert(max_position_embeddings=9)
    assert (max_positions(model), has_position_table(model)) == (9, True)


def test_rows_that_are_reserved_for_padding_do_not_count():
    model = RobertaForSequenceClassification(RobertaConfig(**SIZES, max_position_embeddings=12))
    assert (max_positions(model), has_position_table(model)) == (10, True)


def test_rotations_have_no_table():
    model = llama(max_position_embeddings=9)
    assert (max_positions(model), has_position_table(model)) == (9, False)


def test_no_maximum():
    model = T5EncoderModel(T5Config(vocab_size=10, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    assert (max_positions(model), has_position_table(model)) == (None, False)
    assert max_positions(nn.Linear(1, 1)) is None


def test_a_maximum_of_minus_one_is_none():
    model = XLNetModel(XLNetConfig(vocab_size=10, d_model=8, n_layer=1, n_head=2, d_inner=8))
    assert model.config.max_position_embeddings == -1
    assert max_positions(model) is None

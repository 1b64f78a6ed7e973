"""Which head a model has."""

import pytest
import torch
from transformers import BertConfig, BertForMultipleChoice, BertModel, T5Config, T5ForConditionalGeneration
from transformers.models.xlm.modeling_xlm import XLMConfig, XLMWithLMHeadModel

from hf_distill import EncoderLMConfig, EncoderLMForMaskedLM
from hf_distill.errors import UnsupportedModelError
from hf_distill.heads import (
    CausalLMHead,
    MaskedLMHead,
    MultiLabelHead,
    QuestionAnsweringHead,
    RegressionHead,
    SingleLabelHead,
    TokenClassificationHead,
    head_of,
)
from tests.tiny_models import SIZES, bert, model_for


EXPECTED = {
    "single_label": SingleLabelHead,
    "multi_label": MultiLabelHead,
    "regression": RegressionHead,
    "tokens": TokenClassificationHead,
    "answers": QuestionAnsweringHead,
    "masked": MaskedLMHead,
    "causal": CausalLMHead,
}


@pytest.mark.parametrize("head", EXPECTED)
def test_known_heads(head):
    assert type(head_of(model_for(head, layers=1))) is EXPECTED[head]


def test_multi_label_knows_its_classes():
    assert head_of(model_for("multi_label", layers=1)).num_classes == 3


def test_several_numbers_are_a_regression_if_the_configuration_says_so():
    assert type(head_of(bert(num_labels=3, problem_type="regression"))) is RegressionHead
    assert type(head_of(bert(num_labels=1, problem_type="multi_label_classification"))) is MultiLabelHead


def test_a_subclass_has_its_parents_head():
    parent = type(model_for("single_label", layers=1))
    assert type(head_of(type("Custom", (parent,), {})(BertConfig(**SIZES, num_hidden_layers=1)))) is SingleLabelHead


def test_registered_models():
    tiny = EncoderLMConfig(**{**SIZES, "num_hidden_layers": 1})
    assert type(head_of(EncoderLMForMaskedLM(tiny))) is MaskedLMHead


def test_xlm_shifts_no_labels():
    """It is in both lists, as a masked and as a causal model, and its loss compares each position with its label."""
    model = XLMWithLMHeadModel(XLMConfig(vocab_size=20, emb_dim=8, n_layers=1, n_heads=2)).eval()
    tokens = torch.tensor([[3, 4, 5, 6]])
    only_first = torch.tensor([[7, -100, -100, -100]])
    outputs = model(tokens, labels=only_first)
    expected = -torch.log_softmax(outputs.logits[0, 0], dim=-1)[7]
    assert torch.allclose(outputs.loss, expected)
    assert type(head_of(model)) is MaskedLMHead


@pytest.mark.parametrize(
    "model",
    [
        BertForMultipleChoice(BertConfig(**SIZES, num_hidden_layers=1)),
        BertModel(BertConfig(**SIZES, num_hidden_layers=1)),
        T5ForConditionalGeneration(T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)),
        torch.nn.Linear(2, 2),
    ],
    ids=lambda model: type(model).__name__,
)
def test_unknown_heads(model):
    with pytest.raises(
        UnsupportedModelError,
        match=rf"{type(model).__name__} has no head .* known: SequenceClassification, .*CausalLM\. .*`head=`",
    ):
        head_of(model)

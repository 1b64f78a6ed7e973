"""Which head a model has."""

import pytest
import torch
from transformers import (
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    BartConfig,
    BartForCausalLM,
    BartForQuestionAnswering,
    BartModel,
    BertConfig,
    BertForPreTraining,
    BertModel,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    MaskFormerForInstanceSegmentation,
    OwlViTForObjectDetection,
    PreTrainedModel,
    VideoPrismClipModel,
    ViTConfig,
    ViTForImageClassification,
    Wav2Vec2Config,
    Wav2Vec2ForXVector,
    XCLIPModel,
)
from transformers.models.xlm.modeling_xlm import XLMConfig, XLMWithLMHeadModel

from hf_distill import EncoderLMConfig, EncoderLMForMaskedLM
from hf_distill.errors import UnsupportedModelError
from hf_distill.heads import (
    CausalLMHead,
    CTCHead,
    EmbeddingHead,
    MaskedLMHead,
    MultiLabelHead,
    MultipleChoiceHead,
    NextSentenceHead,
    QuestionAnsweringHead,
    RegressionHead,
    SemanticSegmentationHead,
    Seq2SeqHead,
    SingleLabelHead,
    SpeechSeq2SeqHead,
    TokenClassificationHead,
    head_of,
)
from tests.tiny_models import ALL_HEADS, SIZES, bart, bert, listener, model_for, vision


EXPECTED = {
    "single_label": SingleLabelHead,
    "multi_label": MultiLabelHead,
    "regression": RegressionHead,
    "tokens": TokenClassificationHead,
    "answers": QuestionAnsweringHead,
    "masked": MaskedLMHead,
    "causal": CausalLMHead,
    "open_multi_label": SingleLabelHead,
    "decoded_single_label": SingleLabelHead,
    "images": SingleLabelHead,
    "sounds": SingleLabelHead,
    "choices": MultipleChoiceHead,
    "pixels": SemanticSegmentationHead,
    "next_sentence": NextSentenceHead,
    "seq2seq": Seq2SeqHead,
    "bart": Seq2SeqHead,
    "speech": SpeechSeq2SeqHead,
    "transcripts": CTCHead,
    "embeddings": EmbeddingHead,
}


@pytest.mark.parametrize("head", ALL_HEADS)
def test_known_heads(head):
    assert type(head_of(model_for(head, layers=1))) is EXPECTED[head]


def test_multi_label_knows_its_classes():
    assert head_of(model_for("multi_label", layers=1)).num_classes == 3


def test_several_numbers_are_a_regression_if_the_configuration_says_so():
    assert type(head_of(bert(num_labels=3, problem_type="regression"))) is RegressionHead
    assert type(head_of(bert(num_labels=1, problem_type="multi_label_classification"))) is MultiLabelHead


def test_images_and_sounds_have_the_problems_of_texts():
    for config, expected in {
        ("num_labels", 1): RegressionHead,
        ("num_labels", 4): SingleLabelHead,
        ("problem_type", "multi_label_classification"): MultiLabelHead,
    }.items():
        head = head_of(vision(ViTForImageClassification, ViTConfig, image_size=8, **dict([config])))
        assert type(head) is expected and head.auto_class is AutoModelForImageClassification
    assert head_of(model_for("sounds", 1)).auto_class is AutoModelForAudioClassification


def test_bart_has_the_head_that_its_class_says():
    assert type(head_of(bart(BartForQuestionAnswering))) is QuestionAnsweringHead
    decoder = BartForCausalLM(BartConfig(vocab_size=20, d_model=8, decoder_layers=1, decoder_attention_heads=2))
    assert type(head_of(decoder)) is CausalLMHead


FLOATS = {"labels": torch.zeros(2, 3)}


def test_an_empty_problem_type_is_decided_by_the_labels():
    head = head_of(model_for("images", 1))
    resolved = head.resolved(FLOATS)
    assert (type(resolved), resolved.num_classes, resolved.auto_class) == (MultiLabelHead, 3, head.auto_class)
    assert resolved.resolved(FLOATS) is resolved
    for labels in (torch.zeros(2, dtype=torch.long), torch.zeros(2, 3, dtype=torch.long), torch.zeros(2), None):
        assert head.resolved({"labels": labels}) is head
    assert head.resolved({"labels": torch.zeros(2, 4)}) is head
    assert head.resolved({}) is head


@pytest.mark.parametrize("task", ["masked", "causal", "seq2seq", "answers", "choices", "regression", "multi_label"])
def test_other_heads_are_not_decided_by_the_labels(task):
    head = head_of(model_for(task, 1))
    assert head.resolved(FLOATS) is head


def test_a_problem_type_that_is_given_stays():
    head = head_of(bert(num_labels=3, problem_type="single_label_classification"))
    assert head.resolved(FLOATS) is head


def test_deberta_takes_floats_for_a_distribution():
    """Transformers at large takes them for a yes or no to each class; DeBERTa's own loss is a cross-entropy."""
    model = DebertaV2ForSequenceClassification(DebertaV2Config(**SIZES, num_hidden_layers=1, num_labels=3)).eval()
    soft = torch.tensor([[0.2, 0.3, 0.5]])
    outputs = model(torch.tensor([[3, 4]]), labels=soft)
    assert torch.allclose(outputs.loss, -(soft * outputs.logits.log_softmax(-1)).sum())
    assert type(head_of(model).resolved({"labels": soft})) is SingleLabelHead


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
    "build",
    [
        lambda: torch.nn.Linear(2, 2),
        lambda: bart(BartModel),
        lambda: type("Custom", (PreTrainedModel,), {})(BertConfig()),
    ],
)
def test_unknown_heads(build):
    model = build()
    with pytest.raises(
        UnsupportedModelError,
        match=rf"{type(model).__name__} has no head that hf_distill knows; .*known: SequenceClassification, .*CTC"
        r".*\. Describe its outputs .*`head=`",
    ):
        head_of(model)


@pytest.mark.parametrize(
    "build, reason",
    [
        (lambda: BertForPreTraining(BertConfig(**SIZES, num_hidden_layers=1)), "its loss of pre-training averages"),
        (lambda: listener(Wav2Vec2ForXVector, Wav2Vec2Config), "its loss has a margin between speakers"),
        (lambda: without_weights(OwlViTForObjectDetection), "its classes are texts of the batch"),
        (lambda: without_weights(MaskFormerForInstanceSegmentation), "its loss first matches masks with labels"),
        (lambda: without_weights(XCLIPModel), "it compares pairs in a way of its own"),
        (lambda: without_weights(VideoPrismClipModel), "it does not give the similarity of every text"),
    ],
)
def test_models_of_which_we_know_why(build, reason):
    """Each says so in one sentence, and how to go on."""
    model = build()
    with pytest.raises(UnsupportedModelError, match=rf"^{type(model).__name__} has no head .* \({reason}.*`head=`"):
        head_of(model)


def without_weights(model_class):
    with torch.device("meta"):
        return model_class(model_class.config_class())


def test_a_model_without_any_head_gives_vectors():
    assert type(head_of(BertModel(BertConfig(**SIZES, num_hidden_layers=1)))) is EmbeddingHead
